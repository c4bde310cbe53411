"""The long runs, a module or several for each chapter; a new module here is all that a new sweep needs.

Each module has pure functions of JSON-able arguments, their grids, and a table

    SWEEPS = {"<chapter>/<sweep>": (run, points)}

with a literal text for the name, from which the key of a page's cache finds the module. What is computed lies in
``results/<chapter>/<sweep>/``.
"""
