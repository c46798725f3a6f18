"""One child process: started, tied to its parent's life, ended; its run folder."""
