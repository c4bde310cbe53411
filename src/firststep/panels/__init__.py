"""The book's explorables, one module a chapter. ``ALL`` maps a name to the function that makes it."""

from firststep.panels import full_rank

ALL = {**full_rank.PANELS}
