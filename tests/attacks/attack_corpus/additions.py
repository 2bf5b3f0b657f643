"""Attacks on what format 1.1 added: fields of the wrong version or kind, and parts that contradict themselves."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from attack_corpus.forge import Add, bound, policy, statement

SCHEMA, SEMANTICS = "SchemaViolation", "SemanticsViolation"
DIGEST = "sha256:" + "0" * 64
Edit = Callable[[dict[str, Any]], object]


def newer(*edits: Edit, version: str = "1.1") -> dict[str, Any]:
    """Return the valid statement as one of format 1.1, its predicate changed by each of `edits`."""
    value = copy.deepcopy(statement())
    predicate = value["predicate"]
    predicate["schemaVersion"] = version
    for edit in edits:
        edit(predicate)
    if predicate["model"].get("variants"):
        return bound(value)
    value["subject"] = [
        {"name": item["name"], "digest": {"budc.tensors.v1": item["tensorRoot"].removeprefix("sha256:")}}
        for item in predicate["model"]["denoisers"]
    ]
    return value


def put(*path: Any, to: Any) -> Edit:
    """Return what sets one value of a predicate."""

    def edit(predicate: dict[str, Any]) -> None:
        holder: Any = predicate
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = to

    return edit


def network(predicate: dict[str, Any]) -> None:
    """Make the policy one for a network without a pipeline."""
    del predicate["shape"]
    model = predicate["model"]
    del model["profile"], model["pipelineClass"]
    model["kind"] = "network"


def by_tensor_root(predicate: dict[str, Any]) -> None:
    """Make the policy one for a network that is bound to no files."""
    network(predicate)
    del predicate["model"]["variants"]


def negative(**prompt: Any) -> Edit:
    """Return what gives a policy a negative prompt."""
    return put("sampler", "negativePrompt", to=prompt)


def config(settings: object) -> Edit:
    """Return what gives a network settings."""
    return put("model", "denoisers", 0, "config", to=settings)


def weighted(weights: dict[str, Any]) -> Edit:
    """Return what makes the policy one for a network with these weights of the guidance branches."""

    def edit(predicate: dict[str, Any]) -> None:
        network(predicate)
        listed = [{"branch": name, "weight": weight} for name, weight in weights.items()]
        predicate["model"]["denoisers"][0]["guidance"] = listed
        predicate["sampler"]["guidance"] = max(weights.values())
        predicate["sampler"]["guidanceRule"] = "classifier-free" if len(weights) > 1 else "none"

    return edit


def quantized(**fields: Any) -> Edit:
    """Return what gives a network a quantisation, but for these fields."""
    usual = {"kind": "fp8-storage", "values": DIGEST}
    return put("model", "denoisers", 0, "quantization", to=usual | fields)


FIXED = negative(rule="fixed", text="blurred")


def images(*listed: dict[str, Any]) -> Edit:
    """Return what gives a policy images."""
    return put("images", to=list(listed))


def adapters(*listed: dict[str, Any], **rule: Any) -> Edit:
    """Return what gives a policy adapters with scales: each one's fields beyond the usual ones."""
    usual = {"name": "style", "file": "0" * 64, "scale": 1}
    return put("model", "adapters", to={"rule": "listed", "scaled": [usual | item for item in listed]} | rule)


def shapes(*listed: dict[str, Any]) -> Edit:
    """Return what gives a policy further shapes, 64 x 32, but for these fields."""

    def edit(predicate: dict[str, Any]) -> None:
        usual = {"height": 32, "width": 64, "frames": 9, "quality": copy.deepcopy(predicate["quality"])}
        predicate["furtherShapes"] = [usual | item for item in listed]

    return edit


def target(**fields: Any) -> Edit:
    """Return what gives a policy a target."""
    return put("target", to={"name": "sglang"} | fields)


def evaluated(digest: str = DIGEST) -> Edit:
    """Return what says that the first figure is from an evaluation."""
    return put("quality", "metrics", 0, "evaluation", to=digest)


TRUNK_OUTPUT = put("policy", "payload", to="trunk-output")
VALID: dict[str, tuple[Edit, ...]] = {
    "nothing new": (),
    "a network": (network,),
    "a network without files": (by_tensor_root,),
    "a network with guidance": (weighted({"cond": 5, "uncond": -4}),),
    "settings of a network": (config({"num_layers": 2}),),
    "a quantised network": (quantized(),),
    "a negative prompt": (FIXED,),
    "images": (images({"role": "first-frame"}, {"role": "reference", "height": 8, "width": 8}),),
    "adapters": (adapters({}),),
    "further shapes": (shapes({}, {"frames": 5}),),
    "a target": (target(),),
    "trunk output": (TRUNK_OUTPUT,),
    "an evaluation": (evaluated(), put("derivedFrom", to=DIGEST)),
}
"""What the attacks start from."""


def versions(add: Add) -> None:
    """What 1.1 added, in a document that says 1.0: readers of 1.0 would not know it."""
    for name in list(VALID)[1:]:
        value = policy(newer(*VALID[name], version="1.0"))
        add(f"version-{name.replace(' ', '-')}", value, SCHEMA, f"{name}, in a document of format 1.0")


def networks(add: Add) -> None:
    """Networks that are half a pipeline, and pipelines that are half a network."""

    def refused(name: str, error: str, why: str, *edits: Edit) -> None:
        add(f"network-{name}", policy(newer(*edits)), error, why)

    refused(
        "with-a-profile", SCHEMA, "a profile that nobody checks", network, put("model", "profile", to="wan")
    )
    refused(
        "with-a-pipeline",
        SCHEMA,
        "a pipeline that nobody checks",
        network,
        put("model", "pipelineClass", to="WanPipeline"),
    )
    size = {"dtype": "float32", "frames": 9, "height": 64, "width": 64}
    refused("with-a-shape", SCHEMA, "a size that nobody checks", network, put("shape", to=size))
    refused("with-further-shapes", SCHEMA, "sizes without a first one", network, shapes({}))
    refused("with-images", SCHEMA, "images that nobody checks", network, images({"role": "reference"}))
    refused("with-a-negative-prompt", SCHEMA, "a prompt for a network that reads none", network, FIXED)
    refused("kind-unknown", SCHEMA, "a kind that is not known", network, put("model", "kind", to="file"))
    refused(
        "kind-spelled-out", SCHEMA, "a second spelling of the usual kind", put("model", "kind", to="pipeline")
    )
    refused("kind-null", SCHEMA, "no kind, spelled out", put("model", "kind", to=None))
    refused(
        "pickle",
        "UnsafeWeights",
        "a network in a pickle",
        network,
        put("model", "variants", 0, "files", "network.pt", to="a" * 64),
    )
    for name, why, *edits in (
        ("weights-without-sum", "weights that do not add up to 1", weighted({"cond": 5, "uncond": -3})),
        ("weights-of-a-branch", "a branch without a weight", weighted({"cond": 1})),
        ("weights-of-another", "a weight for no branch", weighted({"cond": 5, "uncond": -4, "more": 0})),
        (
            "weights-and-scale",
            "weights of another scale",
            weighted({"cond": 5, "uncond": -4}),
            put("sampler", "guidance", to=4),
        ),
        (
            "weights-and-rule",
            "weights for guidance that there is not",
            weighted({"cond": 5, "uncond": -4}),
            put("sampler", "guidanceRule", to="none"),
        ),
    ):
        refused(name, SEMANTICS, why, *edits)
    for name, *path in (
        ("latents", "latents"),
        ("blocks", "denoisers", 0, "blocks"),
        ("guidance", "denoisers", 0, "guidance"),
    ):
        weights = [{"branch": "cond", "weight": 5}, {"branch": "uncond", "weight": -4}]
        value = {"latents": [4], "blocks": "layers", "guidance": weights}[name]
        refused(f"pipeline-with-{name}", SCHEMA, f"{name} that nobody checks", put("model", *path, to=value))
    for name, value in (("latents", [0]), ("latents", []), ("blocks", "a/b"), ("guidance", [])):
        place = ("latents",) if name == "latents" else ("denoisers", 0, name)
        why = f"{name} that no network has"
        refused(f"with-{name}-{len(value)}", SCHEMA, why, network, put("model", *place, to=value))
    for field in ("profile", "pipelineClass", "variants"):
        refused(
            f"pipeline-without-{field}",
            SCHEMA,
            f"a pipeline that is bound to no {field}",
            lambda predicate, field=field: predicate["model"].pop(field),
        )
    refused(
        "pipeline-without-shape", SCHEMA, "a pipeline of any size", lambda predicate: predicate.pop("shape")
    )
    for name, digest, why in (
        ("subject-of-another-root", {"budc.tensors.v1": "a" * 64}, "signed for other weights"),
        ("subject-as-a-file", {"sha256": "a" * 64}, "a tensor root that passes as a file's digest"),
        ("subject-under-another-name", {"budc.tensors.v2": "a" * 64}, "a digest of another kind"),
    ):
        value = newer(by_tensor_root)
        value["subject"][0]["digest"] = digest
        add(f"network-{name}", policy(value), SEMANTICS, why)
    value = newer(by_tensor_root)
    value["subject"][0]["digest"]["sha256"] = "a" * 64
    add("network-subject-by-two-digests", policy(value), SCHEMA, "two digests, of which one is not checked")
    value = newer(by_tensor_root)
    value["subject"] = []
    add("network-subject-missing", policy(value), SCHEMA, "signed for no weights")


def conditions(add: Add) -> None:
    """Negative prompts, images and adapters that say nothing, too much, or two things."""

    def refused(name: str, error: str, why: str, *edits: Edit) -> None:
        add(name, policy(newer(*edits)), error, why)

    refused("negative-without-text", SEMANTICS, "a prompt that is fixed and not told", negative(rule="fixed"))
    refused(
        "negative-varied-with-text",
        SEMANTICS,
        "a prompt that varied and is told",
        negative(rule="varied", text="blurred"),
    )
    unguided = put("sampler", "guidanceRule", to="none")
    refused("negative-unused", SEMANTICS, "a prompt that no guidance uses", FIXED, unguided)
    refused("negative-rule-unknown", SCHEMA, "a rule that is not known", negative(rule="any"))
    refused(
        "negative-with-escape", SCHEMA, "a terminal escape", negative(rule="fixed", text="\x1b[2Jblurred")
    )
    refused(
        "negative-turns-direction", SCHEMA, "text in another order", negative(rule="fixed", text="a\u202eb")
    )
    refused("negative-too-long", SCHEMA, "a prompt over its bound", negative(rule="fixed", text="x" * 8193))
    refused("negative-a-text", SCHEMA, "a prompt without a rule", put("sampler", "negativePrompt", to="x"))
    refused("negative-null", SCHEMA, "no prompt, spelled out", put("sampler", "negativePrompt", to=None))

    refused("config-with-a-note", SEMANTICS, "a note that no reader compares", config({"_class_name": "Wan"}))
    refused("config-with-escape", SEMANTICS, "a terminal escape", config({"norm": "\x1b[2Jrms"}))
    refused("config-turns-direction", SEMANTICS, "text in another order", config({"norms": ["a\u202eb"]}))
    refused("config-nested", SCHEMA, "a setting of any depth", config({"rope": {"dim": 2}}))
    refused("config-named-by-markup", SCHEMA, "markup in a name", config({"<b>": 2}))
    refused(
        "config-huge", SCHEMA, "more settings than any network has", config({f"s{i}": 1 for i in range(257)})
    )
    refused("config-none", SCHEMA, "no settings, spelled out", config({}))
    refused("config-null", SCHEMA, "no settings, spelled out", config(None))

    refused("quantization-named-by-markup", SCHEMA, "markup in a name", quantized(kind="<b>fp8</b>"))
    refused("quantization-of-a-path", SCHEMA, "a field that is not known", quantized(path="../fp8"))
    refused("quantization-half-a-digest", SCHEMA, "half a digest", quantized(values="sha256:" + "0" * 32))
    refused(
        "quantization-of-anything",
        SCHEMA,
        "values that nobody compares",
        put("model", "denoisers", 0, "quantization", to={"kind": "fp8-storage"}),
    )

    refused("image-of-half-a-size", SEMANTICS, "a height alone", images({"role": "reference", "height": 8}))
    frame = {"role": "first-frame"}
    refused("image-first-twice", SEMANTICS, "two first frames", images(frame, frame))
    refused(
        "image-first-of-a-picture",
        SEMANTICS,
        "a picture's frame",
        images(frame),
        put("shape", "frames", to=1),
    )
    refused("image-role-unknown", SCHEMA, "a role that is not known", images({"role": "mask"}))
    refused("image-nine", SCHEMA, "more images than any model takes", images(*[{"role": "reference"}] * 9))
    refused("image-of-no-size", SCHEMA, "nothing", images({"role": "reference", "height": 0, "width": 0}))
    refused("image-none", SCHEMA, "no images, spelled out", images())
    refused("image-with-a-path", SCHEMA, "a field that is not known", images(frame | {"path": "/etc/passwd"}))

    refused("adapter-twice", SEMANTICS, "one file at two scales", adapters({}, {"scale": 0.5}))
    refused("adapter-for-nobody", SEMANTICS, "into a denoiser that is none", adapters({"denoiser": "vae"}))
    refused("adapter-and-digests", SEMANTICS, "two answers to what is loaded", adapters({}, digests=[DIGEST]))
    refused("adapter-unasked", SEMANTICS, "adapters under a rule of none", adapters({}, rule="none"))
    refused("adapter-any", SEMANTICS, "adapters under a rule of any", adapters({}, rule="any"))
    refused("adapter-scale-out-of-bounds", SCHEMA, "a scale that explodes", adapters({"scale": 1e9}))
    refused("adapter-scale-text", SCHEMA, "a scale in words", adapters({"scale": "1"}))
    refused("adapter-with-markup", SCHEMA, "markup in a name", adapters({"name": "<b>style</b>"}))
    refused("adapter-digest-short", SCHEMA, "half a digest", adapters({"file": "0" * 32}))
    refused("adapter-with-a-path", SCHEMA, "a field that is not known", adapters({"path": "../style"}))
    refused("adapter-none", SCHEMA, "no adapters, spelled out", adapters())


def further_shapes(add: Add) -> None:
    """Shapes that are listed twice, bring half a schedule, or other masks."""

    def refused(name: str, error: str, why: str, *listed: dict[str, Any]) -> None:
        add(f"shape-{name}", policy(newer(shapes(*listed))), error, why)

    predicate = statement()["predicate"]
    sigmas, timesteps = predicate["sampler"]["sigmas"], predicate["sampler"]["timesteps"]
    quality, branches = predicate["quality"], predicate["policy"]["branches"]
    (branch,) = branches
    refused("first-again", SEMANTICS, "two reports of the first shape", {"height": 64})
    refused("twice", SEMANTICS, "two reports of one shape", {}, {})
    refused("half-a-schedule", SEMANTICS, "sigmas without timesteps", {"sigmas": sigmas})
    refused("other-half-of-a-schedule", SEMANTICS, "timesteps without sigmas", {"timesteps": timesteps})
    refused(
        "sigmas-rise",
        SEMANTICS,
        "sigmas that rise",
        {"sigmas": [sigmas[0], sigmas[2], sigmas[1], *sigmas[3:]], "timesteps": timesteps},
    )
    refused("of-other-steps", SEMANTICS, "a step fewer", {"sigmas": sigmas[1:], "timesteps": timesteps[1:]})
    inverted = branch | {"mask": [True] * len(branch["mask"]), "predictor": [[] for _ in branch["mask"]]}
    refused("of-another-mask", SEMANTICS, "more evaluations than the budget says", {"branches": [inverted]})
    refused("of-other-branches", SEMANTICS, "a branch less", {"branches": [branch | {"names": ["cond"]}]})
    ahead = copy.deepcopy(branch)
    ahead["predictor"][1] = [1, 1, 1]
    refused("predicts-the-future", SEMANTICS, "more terms than computed steps before", {"branches": [ahead]})
    exploding = copy.deepcopy(branch)
    exploding["predictor"][1] = [1e9]
    refused("coefficient-out-of-bounds", SCHEMA, "a coefficient that explodes", {"branches": [exploding]})
    better = copy.deepcopy(quality)
    better["metrics"][0]["worst"] = better["metrics"][0]["mean"] / 2
    refused("worst-is-better", SEMANTICS, "figures that no measurement can give", {"quality": better})
    refused(
        "held-out-is-calibration",
        SEMANTICS,
        "quality measured on what was searched on",
        {"quality": quality | {"heldOut": quality["calibration"]}},
    )
    refused("without-quality", SCHEMA, "a shape of which nothing was measured", {"quality": {}})
    refused("of-another-dtype", SCHEMA, "a dtype of its own", {"dtype": "float16"})
    refused("of-no-size", SCHEMA, "no pixels", {"width": 0})
    refused("seventeen", SCHEMA, "more shapes than may be listed", *({"frames": 10 + k} for k in range(17)))
    refused("none", SCHEMA, "no further shapes, spelled out")


def origins(add: Add) -> None:
    """Targets and evaluations that cannot be told, and payloads that are none."""

    def refused(name: str, error: str, why: str, *edits: Edit) -> None:
        add(name, policy(newer(*edits)), error, why)

    refused("target-with-markup", SCHEMA, "markup in a name", target(name="<script>"))
    refused("target-version-with-escape", SCHEMA, "a terminal escape", target(version="1\x1b[2J"))
    refused("target-settings-nested", SCHEMA, "a setting of settings", target(settings={"a": {"b": 1}}))
    refused("target-settings-empty", SCHEMA, "no settings, spelled out", target(settings={}))
    refused("target-digest-short", SCHEMA, "half a digest", target(configDigest="sha256:00"))
    refused("target-unknown-field", SCHEMA, "a field that is not known", target(command="rm -rf /"))
    refused("target-a-text", SCHEMA, "a target that is text", put("target", to="sglang"))
    refused(
        "payload-unknown", SCHEMA, "a payload that is not known", put("policy", "payload", to="block-output")
    )
    refused("evaluation-of-nothing", SEMANTICS, "an evaluation, of no policy that is named", evaluated())
    refused("evaluation-digest-short", SCHEMA, "half a digest", evaluated("sha256:00"))
    refused("evaluation-with-a-path", SCHEMA, "a path in place of a digest", evaluated("../evaluation.json"))
