"""A model folder of a known family needs no change of the package: its profile comes from its configurations."""

import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from budc.policies.folder_profile import profile_from_folder
from budc.policies.model_choice import choose_model
from budc.policies.profile import embedded_folder, find_weights, load_profile, profile_names
from budc.policies.profile_text import profile_text
from budc.schema.errors import BudcError, UnsupportedModel, UsageError, WeightsMissing


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


@pytest.fixture
def folder_of(tmp_path: Path) -> Callable[..., Path]:
    """A function (profile name, settings of the transformer, entries of the index) that makes a folder without weights."""

    def make(name: str, settings: dict[str, Any] = {}, **index: Any) -> Path:  # noqa: B006
        profile = load_profile(name)
        folder = tmp_path / "my model"
        usual = {
            "_class_name": profile.pipeline_class,
            "scheduler": ["diffusers", profile.scheduler],
            "boundary_ratio": profile.experts.boundary if profile.experts else None,
        }
        denoisers = {denoiser: ["diffusers", kind] for denoiser, kind in profile.denoisers.items()}
        write(folder / "model_index.json", usual | denoisers | index)
        write(
            folder / "scheduler" / "scheduler_config.json",
            {"_class_name": profile.scheduler, "flow_shift": 3.0},
        )
        for denoiser in profile.denoisers:
            config = dict(profile.architecture.get(denoiser, {}))
            if profile.embedded:
                config = json.loads((embedded_folder(profile) / denoiser / "config.json").read_text())
            write(folder / denoiser / "config.json", config | settings)
        return folder

    return make


REAL = [name for name in profile_names() if load_profile(name).fused is None]


@pytest.mark.parametrize("name", REAL)
def test_a_fine_tune_is_deployed_as_the_model_that_it_was_made_from(folder_of: Any, name: str) -> None:
    made, shipped = profile_from_folder(folder_of(name)), load_profile(name)
    assert made.same_architecture
    assert name in (made.base, *made.others)
    profile = profile_from_folder(folder_of(name), like=name).profile
    own = {
        "name",
        "title",
        "weights",
        "scheduler_config",
        "repository",
        "revision",
        "licence",
        "size_gb",
        "embedded",
    }
    own |= {"parameters", "architecture", "try_instead"}
    for field in set(shipped.__struct_fields__) - own:
        assert getattr(profile, field) == getattr(shipped, field), field
    assert (profile.name, profile.scheduler_config, profile.embedded) == ("my-model", {}, "")
    if shipped.architecture:
        assert profile.architecture == shipped.architecture


def test_another_size_is_deployed_as_its_pipeline(folder_of: Any) -> None:
    made = profile_from_folder(folder_of("wan2.1", {"num_layers": 7}))
    assert (made.base, made.same_architecture, made.others) == ("wan2.1", False, ())
    assert made.profile.architecture["transformer"]["num_layers"] == 7


def test_a_network_that_takes_no_guidance_has_none(folder_of: Any) -> None:
    profile = profile_from_folder(folder_of("flux.1-dev", {"guidance_embeds": False})).profile
    assert (profile.guidance_rule, profile.guidance, profile.branches) == ("none", 0, ("cond",))


def test_experts_take_over_where_the_folder_says(folder_of: Any) -> None:
    experts = profile_from_folder(folder_of("wan2.2", boundary_ratio=0.9)).profile.experts
    assert experts is not None
    assert (experts.boundary, experts.guidance) == (0.9, 3.0)


@pytest.mark.parametrize("ratio", [None, 0, 2.0, "0.9"])
def test_experts_that_never_take_over_are_refused(folder_of: Any, ratio: Any) -> None:
    with pytest.raises(UnsupportedModel, match=r"boundary_ratio is .*, which does not say when"):
        profile_from_folder(folder_of("wan2.2", boundary_ratio=ratio))


def test_the_scheduler_is_the_folders(folder_of: Any) -> None:
    other = ["diffusers", "FlowMatchEulerDiscreteScheduler"]
    assert profile_from_folder(folder_of("wan2.1", scheduler=other)).profile.scheduler == other[1]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("my model", "my-model"),
        ("wan2.1", "my-wan2.1"),
        ("..x", "x"),
        ("模型", "my-model"),
        ("models--me--My-Wan/snapshots/0f", "My-Wan"),
    ],
)
def test_a_folders_name_is_the_models(folder_of: Any, tmp_path: Path, path: str, name: str) -> None:
    target = tmp_path / "named" / path
    shutil.copytree(folder_of("wan2.1"), target)
    assert profile_from_folder(target).profile.name == name


REFUSED: dict[str, tuple[dict[str, Any], type[BudcError], str]] = {
    "transformer": ({"transformer": ["diffusers", "SD3Transformer2DModel"]}, UnsupportedModel, "is a SD3Transformer2DModel, of no family"),
    "u-net": ({"transformer": [None, None], "unet": ["diffusers", "UNet2DConditionModel"]}, UnsupportedModel, "without a transformer"),
    "pipeline": ({"_class_name": "WanVACEPipeline"}, UnsupportedModel, "a WanVACEPipeline with transformer is not"),
    "tokens": ({"expand_timesteps": True}, UnsupportedModel, "a timestep for each token"),
    "scheduler": ({"scheduler": [None, None]}, WeightsMissing, "names no scheduler"),
    "empty": ({"transformer": []}, UnsupportedModel, "without a transformer"),
    "no scheduler": ({"scheduler": None}, WeightsMissing, "names no scheduler"),
    "odd class": ({"transformer": ["diffusers", 3]}, WeightsMissing, "names no transformer"),
}  # fmt: skip


@pytest.mark.parametrize(("index", "kind", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_of_no_known_family_is_told_what_it_has(
    folder_of: Any, index: dict[str, Any], kind: type[BudcError], message: str
) -> None:
    with pytest.raises(kind, match=message) as refused:
        profile_from_folder(folder_of("wan2.1", **index))
    assert refused.value.remedy


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1, "a": 2}'])
@pytest.mark.parametrize("name", ["model_index.json", "transformer/config.json"])
def test_a_configuration_that_is_none_is_named(folder_of: Any, name: str, text: str) -> None:
    folder = folder_of("wan2.1")
    (folder / name).write_text(text)
    with pytest.raises(WeightsMissing, match=Path(name).name):
        choose_model(str(folder))


def test_like_names_a_model_of_the_same_pipeline(folder_of: Any) -> None:
    folder = folder_of("z-image")
    assert profile_from_folder(folder, "z-image-turbo").profile.steps == 8
    with pytest.raises(UsageError, match=r"--like: wan2\.1 is of another pipeline") as refused:
        profile_from_folder(folder, "wan2.1")
    assert "z-image-turbo" in refused.value.remedy
    with pytest.raises(UsageError, match="--like: no profile named 'wan'"):
        profile_from_folder(folder, "wan")


# As a file ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REAL)
def test_a_profile_reads_back_from_its_text(folder_of: Any, tmp_path: Path, name: str) -> None:
    folder = folder_of(name)
    made = profile_from_folder(folder)
    path = tmp_path / "mine.toml"
    path.write_text(
        profile_text(made, Path("my model"), "blocks (30)", {"flow_shift": 3.0}), encoding="utf-8"
    )
    read = choose_model(str(path))
    assert read == msgspec.structs.replace(made.profile, try_instead=read.try_instead)
    assert find_weights(read, None) == folder


def test_every_field_says_what_it_means(folder_of: Any) -> None:
    folder = folder_of("wan2.2")
    text = profile_text(profile_from_folder(folder), folder, "blocks (40)", {"flow_shift": 3.0})
    assert "blocks (40)" in text
    assert "flow_shift 3.0" in text
    content = tomllib.loads(text)
    plain = {"[prompts]", "title", "held_out_size", "temperatureStart", "temperatureEnd", "protectedFraction"}
    architecture = {name for settings in content["architecture"].values() for name in settings}
    for line in text.splitlines():
        field = line.partition(" = ")[0]
        assert "#" in line or not line or field in plain | architecture, line


@pytest.fixture
def own(folder_of: Any, tmp_path: Path) -> Callable[..., Path]:
    """A function (old text, new text) that writes a profile of the user's own, changed."""

    def write(old: str = "", new: str = "") -> Path:
        folder = folder_of("wan2.1")
        text = profile_text(profile_from_folder(folder), folder, "blocks", {})
        assert old in text
        path = tmp_path / "mine.toml"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        return path

    return write


FAULTS = {
    "not TOML": ('name = "my-model"', "name = ", "cannot read the profile"),
    "unknown field": ('name = "my-model"', 'name = "my-model"\nsize = 3', "unknown field `size`"),
    "missing field": ('family = "wan2.1"', "", "missing required field `family`"),
    "type": ("steps = 50", 'steps = "50"', r"Expected `int`, got `str` - at `\$\.steps`"),
    "shipped name": ('name = "my-model"', 'name = "wan2.1"', "is that of a model that the package ships"),
    "no name": ('name = "my-model"', 'name = "a/b"', "name 'a/b' is no name"),
    "embedded": ('name = "my-model"', 'name = "x"\nembedded = "nano"', "embedded is for models that the package ships"),
    "steps": ("steps = 50", "steps = 0", "steps is 0, expected 1 to 1000"),
    "frames": ("frames = 81", "frames = -1", "frames is -1"),
    "text": ("text_tokens = 512", "text_tokens = 0", "text_tokens is 0"),
    "branches": ('branches = ["cond", "uncond"]', 'branches = ["cond"]', "branches is \\['cond'\\], but guidance_rule"),
    "unused guidance": ('guidance_rule = "classifier-free"', 'guidance_rule = "none"', "branches is"),
    "no guidance": ("guidance = 5.0", "guidance = 1.0", "at which a pipeline runs no second branch"),
    "no number": ("guidance = 5.0", "guidance = nan", "guidance is nan"),
    "no number inside": ("temperatureEnd = ", "temperatureEnd = inf  # ", r"search\.temperatureEnd is inf"),
    "experts": ("[prompts]", "[experts]\nboundary = 0.5\nguidance = 3.0\n\n[prompts]", "denoisers names 1, and"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), FAULTS.values(), ids=FAULTS)
def test_a_profile_that_contradicts_itself_is_refused_by_file_and_field(
    own: Any, old: str, new: str, message: str
) -> None:
    path = own(old, new)
    with pytest.raises(UsageError, match=message) as refused:
        choose_model(str(path))
    assert str(path) in str(refused.value)
    assert refused.value.remedy


def test_prompts_of_ones_own_lie_beside_the_profile(own: Any, tmp_path: Path) -> None:
    path = own('calibration = "prompts/video-calibration.txt"', 'calibration = "mine.txt"')
    assert choose_model(str(path)).prompts.calibration == "mine.txt"
    (tmp_path / "mine.txt").write_text("a\n")
    prompts = choose_model(str(path)).prompts
    assert prompts.calibration == str(tmp_path / "mine.txt")
    assert prompts.held_out == "prompts/video-held-out.txt"


# By a name ------------------------------------------------------------------------------------------------


def test_a_shipped_name_wins_over_a_folder_and_a_path_does_not(
    folder_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder_of("flux.1-dev"), tmp_path / "wan2.1")
    monkeypatch.chdir(tmp_path)
    assert choose_model("wan2.1") == load_profile("wan2.1")
    for path in ("./wan2.1", "wan2.1/", Path("wan2.1")):
        assert choose_model(path).family == "flux"


@pytest.mark.parametrize("choice", ["wan21", "", "gone/folder", "a\0b", "x" * 5000])
def test_what_names_nothing_is_refused_with_the_nearest(choice: str) -> None:
    with pytest.raises(
        UsageError, match=r"--model: no profile named .*, and no TOML file or folder of that name"
    ):
        choose_model(choice)


@pytest.mark.parametrize("name", ["gone.toml", "folder.toml/gone.toml"])
def test_a_profile_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"gone\.toml: cannot read the profile"):
        choose_model(str(tmp_path / name))


def test_a_model_without_a_folder_says_so(own: Any) -> None:
    profile = msgspec.structs.replace(choose_model(str(own())), weights="")
    with pytest.raises(WeightsMissing, match="neither the profile nor --weights names its folder"):
        find_weights(profile, None)


def test_a_network_that_sees_a_last_frame_is_refused(folder_of: Any) -> None:
    folder = folder_of("wan2.1-i2v-14b-720p", {"pos_embed_seq_len": 514})
    with pytest.raises(
        UnsupportedModel, match=r"transformer/config\.json: pos_embed_seq_len is 514, .* last frame"
    ):
        profile_from_folder(folder)


def test_the_profile_of_an_image_model_asks_for_images(folder_of: Any) -> None:
    made = profile_from_folder(folder_of("wan2.1-i2v-14b-480p"))
    text = profile_text(made, Path("model"), "blocks", {})
    assert 'calibration = ""' in text
    assert text.count("a .csv or .jsonl file of yours, with an image for each prompt") == 1
