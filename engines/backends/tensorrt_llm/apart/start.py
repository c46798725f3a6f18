"""The program: `python start.py SOCKET_FD`, with the package beside it found by path.

MPI's workers import the program again under another name, so all of it waits for `__main__`.
"""

import os
import sys
import types

if __name__ == "__main__":
    nemotrt = types.ModuleType("nemotrt")
    folder = os.path.dirname(os.path.abspath(__file__))
    nemotrt.__path__ = [os.path.normpath(os.path.join(folder, *[os.pardir] * 4))]
    sys.modules["nemotrt"] = nemotrt

    from nemotrt.engines.backends.tensorrt_llm.apart.service import serve

    serve(int(sys.argv[1]))
