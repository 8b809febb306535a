"""Where a query's time goes, measured so that two numbers may be compared."""
