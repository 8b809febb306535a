"""robosuite's own tasks on its Panda, each with an instruction."""

import sim.suites.tabletop as _quiet  # noqa: F401 - its first line silences robosuite's greeting
