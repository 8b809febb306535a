"""A Panda at a table, built on robosuite."""

import logging

# robosuite greets every import with advice on optional parts; only its errors are of use here. It
# sets its logger's level on import, so a filter it is.
logging.getLogger("robosuite_logs").addFilter(lambda record: record.levelno >= logging.ERROR)
