"""Methods against one another: the same data, model size, batch and schedule, at equal steps and at equal seconds.

`compare` is the whole of it; the command is `polymodal compare`. Files: `_plan` what is run, `_budget` how long,
`_world` the data, `_figures` what is measured, `_controls` what needs no training, `_tables` how it is shown.
"""

from polymodal.compare._plan import CompareSettings, Method
from polymodal.compare._run import Compared, compare

__all__ = ["CompareSettings", "Compared", "Method", "compare"]
