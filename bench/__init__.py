"""``make bench``: Obhut against what people do without it, side by side in one run; ratios, bounds, and an honest method.

The method is explained in ``docs/explanation/benchmarks.md``.
"""
