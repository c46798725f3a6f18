"""Published rows, and how the campaigns that measured them were set up."""
