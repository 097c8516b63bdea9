"""Speed against what one would otherwise run: one module per row or family of rows, run by `invoke bench`.

Both sides run in one process on one machine, in turn, so that only ratios matter. Nothing here is a test.
"""
