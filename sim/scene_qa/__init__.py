"""`scene_qa`: pictures of the tabletop scene, questions about them, and answers that are true.

What is asked is decided by what the simulator's segmentation shows, never by where things were put.
`vlm/tasks/scene_qa.py` reads what is written here; the two share a file format and no code.
"""
