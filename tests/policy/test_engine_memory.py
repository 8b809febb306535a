"""An export holds one weight at a time, whatever the size of the model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

from tests.house.rules import ROOT
from tests.policy.tiny import CONFIGS, TEXT, write_tiny

MOST = 1.3  # of the weights
WIDE = replace(
    TEXT, hidden_size=768, intermediate_size=2048, num_hidden_layers=6, num_key_value_heads=4
)
CODE = """
import sys, resource, json
from pathlib import Path
from policy.openvla.engine.export import export_policy

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

import torch, onnxscript.optimizer, torch.onnx
from policy.openvla.model import OpenVLAModel

checkpoint, engine = (Path(a) for a in sys.argv[1:])
before = peak()
export_policy(checkpoint, engine, methods=[], keeps=[], prompt_tokens=20)
print(json.dumps([peak() - before, (engine / "weights.bin").stat().st_size]))
"""


def test_an_export_needs_little_more_memory_than_the_weights(tmp_path):
    """The checkpoint's own pages, mapped from its files, count as well."""
    write_tiny(tmp_path / "wide", replace(CONFIGS["oft_discrete_1"], text=WIDE))
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CODE, str(tmp_path / "wide"), str(tmp_path / "engine")]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    used, weights = json.loads(done.stdout)
    assert weights > 150e6
    print(f"{used / weights:.2f} of the weights")
    assert used < MOST * weights
