"""The long runs, a module or several for each chapter; a new module here is all that a new sweep needs.

Each module has pure functions of JSON-able arguments, their grids, and a table

    SWEEPS = {"<chapter>/<sweep>": (run, points)}

with a literal text for the name, from which the key of a page's cache finds the module. Where dtype is not a parameter
of the run it stands third. What is computed lies in ``results/<chapter>/<sweep>/``. Whatever changes a result is a
parameter or code that the function reaches by name, so that a record's code version sees it.
"""
