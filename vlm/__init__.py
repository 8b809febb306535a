"""Vision-language models offline: benchmark tasks, small models, pruned and dense side by side."""
