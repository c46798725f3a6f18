"""One way to draw: a chart is data, laid out once into marks, and written as SVG or as PNG.

Read `spec`, `layout` (with `axis`, `cells` and `number`), then `svg`, `png` and `page`.
"""
