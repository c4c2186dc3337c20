"""A program of torch.export answers as the network does, where this project is not installed."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch

from contract.spec import Images
from convert.export_torch import ExportTorchConfig, main
from convert.serving_model import ServingModel
from training.network.checkpoint import load_checkpoint

PROJECT = Path(__file__).resolve().parents[2]
WEIGHTS = PROJECT / "weights" / "agegendernet-128.safetensors"
ELSEWHERE = """
import sys, numpy, torch
program = torch.export.load("model.pt2").module()
answers = program(torch.from_numpy(numpy.load("images.npy")))
numpy.save("answers.npy", numpy.concatenate([answer.detach().numpy() for answer in answers], axis=1))
assert not {"training", "convert", "contract"} & set(sys.modules)
"""


def test_the_program_answers_as_the_network_does_without_its_code(noise: Images, tmp_path: Path) -> None:
    main(ExportTorchConfig(WEIGHTS, tmp_path / "model.pt2"))
    with torch.no_grad():
        expected = torch.cat(ServingModel(load_checkpoint(WEIGHTS)).eval()(torch.from_numpy(noise)), dim=1)
    np.save(tmp_path / "images.npy", noise)
    subprocess.run([sys.executable, "-I", "-c", ELSEWHERE], cwd=tmp_path, check=True)
    np.testing.assert_allclose(np.load(tmp_path / "answers.npy"), expected, rtol=1e-4, atol=1e-5)
    with zipfile.ZipFile(tmp_path / "model.pt2") as archive:  # nor does the file tell where that code was
        assert not any(str(PROJECT).encode() in archive.read(name) for name in archive.namelist())
