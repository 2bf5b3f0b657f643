"""Model folders that a compile refuses: pickled, cut, damaged, or not whole."""

import pytest
from flag_compiles import compiled

from budc.schema.errors import (
    BudcError,
    UnsafeWeights,
    UnsupportedModel,
    WeightsMissing,
)


def copy_model(source, target):
    import shutil

    shutil.copytree(source, target)
    return target


def test_pickled_weights_are_refused(flags, wan_folder, tmp_path):
    folder = copy_model(wan_folder, tmp_path / "m")
    (weights,) = (folder / "transformer").glob("*.safetensors")
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(UnsafeWeights, match="pickled"):
        compiled(flags | {"weights": folder})


def test_truncated_weights_are_refused(flags, wan_folder, tmp_path):
    folder = copy_model(wan_folder, tmp_path / "m")
    (weights,) = (folder / "transformer").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UnsafeWeights, match=weights.name):
        compiled(flags | {"weights": folder})


def test_another_pipeline_class_is_refused(flags, wan_folder, tmp_path):
    folder = copy_model(wan_folder, tmp_path / "m")
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("WanPipeline", "FluxPipeline"))
    with pytest.raises(UnsupportedModel, match="FluxPipeline"):
        compiled(flags | {"weights": folder})


@pytest.mark.parametrize(
    ("defect", "error", "word"),
    [
        ("vae/diffusion_pytorch_model.safetensors", WeightsMissing, "vae"),
        ("vae/config.json", WeightsMissing, r"vae/config\.json: no such file"),
        ("text_encoder", WeightsMissing, "text_encoder"),
        ("text_encoder/model.safetensors", WeightsMissing, "text_encoder"),
        ("tokenizer", WeightsMissing, "tokenizer"),
        ("transformer/config.json", WeightsMissing, r"transformer/config\.json: no such file"),
        ("scheduler/scheduler_config.json", WeightsMissing, "scheduler"),
    ],
)
def test_a_model_that_is_not_whole_is_refused_before_any_rollout(
    flags, wan_folder, tmp_path, monkeypatch, defect, error, word
):
    import shutil

    from budc.compiler.evaluation.pipeline_rollout import PipelineRollout

    monkeypatch.setattr(PipelineRollout, "run", lambda *_: pytest.fail("rolled out"))
    folder = copy_model(wan_folder, tmp_path / "m")
    gone = folder / defect
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    with pytest.raises(error, match=word):
        compiled(flags | {"weights": folder})


@pytest.mark.parametrize(
    "name", ["transformer/config.json", "scheduler/scheduler_config.json", "vae/config.json"]
)
@pytest.mark.parametrize("content", ["[]", "{", '{"_class_name": 3, "num_layers": "four"}'])
def test_a_damaged_configuration_is_refused(flags, wan_folder, tmp_path, name, content):
    folder = copy_model(wan_folder, tmp_path / "m")
    (folder / name).write_text(content)
    with pytest.raises(BudcError) as caught:
        compiled(flags | {"weights": folder})
    assert name.partition("/")[0] in str(caught.value)


def test_a_shard_that_is_not_there_is_named(flags, wan_folder, tmp_path):
    folder = copy_model(wan_folder, tmp_path / "m")
    index = folder / "text_encoder" / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}')
    with pytest.raises(WeightsMissing, match="model-00002-of-00002"):
        compiled(flags | {"weights": folder})


def test_a_pickle_beside_the_weights_is_refused_before_it_could_bind(flags, wan_folder, tmp_path):
    folder = copy_model(wan_folder, tmp_path / "m")
    (folder / "transformer" / "old.bin").write_bytes(b"x")
    with pytest.raises(UnsafeWeights, match=r"old\.bin"):
        compiled(flags | {"weights": folder})
