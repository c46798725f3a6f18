"""Where a step of a native engine spends its time, operator by operator, against the roofline."""
