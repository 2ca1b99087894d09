"""What a build imports, imported: the fork server of `crashing.in_clean_process` starts with it."""

from tests import crashing

crashing.load_everything()
