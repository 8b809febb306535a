"""Tables, charts and pages that show what a run measured."""
