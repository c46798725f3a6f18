"""One way to draw: charts as data, axes and ticks, SVG, and files."""
