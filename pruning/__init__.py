"""Which visual tokens live: pure algebra on torch and numpy, no model and no robot in sight."""
