"""The flight cache in this directory: `doit` builds it, `doit clean` resets it, `doit list` names its tasks."""

from rules import declare

globals().update(declare(__file__))
