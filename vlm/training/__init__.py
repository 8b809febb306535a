"""How `mini-vlm` is learnt, from `scene_qa` and nothing else."""
