import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from training.loop.hardware import forward_macs, peak_share
from training.profile import busy_share, main, parse


def test_real_steps_are_measured_at_each_resolution_of_a_run(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = parse([
        "--manifest", str(manifest), "--recipe", "modern", "--first-resolutions", "64", "--resolution", "128",
        "--batch-size", "8", "--device", "cpu", "--steps", "2", "--warm-up-steps", "1",
        "--csv", str(tmp_path / "speed.csv"), "--trace", str(tmp_path / "trace.json"), "--out", str(tmp_path / "run"),
    ])  # fmt: skip
    main(config)
    main(config)
    rows = pd.read_csv(tmp_path / "speed.csv")
    assert rows["side_px"].tolist() == [64, 128, 64, 128]
    assert (rows["recipe"] == "modern").all()
    assert (rows["torch"] == torch.__version__).all()
    assert rows["images_per_s"].tolist() == pytest.approx((8000 / rows["step_ms"]).tolist())
    assert rows["data_share"].between(0.001, 0.9).all()
    assert rows["peak_memory_gib"].between(0.1, 100).all()
    assert rows["bf16_peak_share"].isna().all()
    printed = capsys.readouterr().out
    assert "unknown" in printed
    for name in ("trace_64.json", "trace_128.json"):
        names = {event.get("name") for event in json.loads((tmp_path / name).read_text())["traceEvents"]}
        assert {"step: gather", "step: augment", "step: forward", "step: backward", "step: update"} <= names
    assert not (tmp_path / "run").exists()  # nothing is trained that stays


def test_multiply_adds_are_those_of_the_published_network() -> None:
    assert forward_macs(224) == pytest.approx(1.88e9, rel=0.005)
    assert forward_macs(224) / forward_macs(128) == pytest.approx((224 / 128) ** 2, rel=0.02)


def test_the_share_of_the_peak_follows_its_formula() -> None:
    share = peak_share(1000, side_px=224, device="NVIDIA A100-SXM4-80GB")
    assert share == pytest.approx(1000 * 6 * forward_macs(224) / 312e12)
    assert peak_share(1000, side_px=224, device="a toaster") is None


def test_busy_is_what_at_least_one_kernel_covers() -> None:
    assert busy_share([(0, 2), (1, 3), (5, 10)]) == pytest.approx(0.8)
    assert busy_share([(5, 10), (0, 10), (6, 7)]) == 1
    assert busy_share([]) == 0
