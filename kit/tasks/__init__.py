"""What is typed: flags in, one function called, tables out. The only package that prints, asks and exits.

`tasks.py` collects the tasks of these modules; their docstrings are the help that `invoke --list` shows.
"""
