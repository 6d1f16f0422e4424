"""All that a GPU has to show, in parts that fit the minutes for which one is at hand: `python -m bench gpu`.

`parts` lists what is measured. `schedule` runs each part in a process of its own and keeps what it measured.
"""
