"""Files of a network that is bound to tensor roots: which of them hold its weights, whatever they are called."""

from pathlib import Path

import pytest

np = pytest.importorskip("numpy")
from safetensors.numpy import save_file  # noqa: E402

from budc.schema.digests import tensor_root  # noqa: E402
from budc.schema.errors import UnsafeWeights, WeightsMismatch, WeightsMissing  # noqa: E402
from budc.schema.network_files import check_tensor_roots  # noqa: E402
from budc.schema.policy import DenoiserBinding  # noqa: E402


def binding(*paths: Path, name: str = "network") -> DenoiserBinding:
    return DenoiserBinding(
        name=name, class_name="Net", tensor_root=tensor_root(paths), architecture="sha256:" + "0" * 64
    )


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    for name in ("a", "b"):
        save_file({name: np.arange(3, dtype=np.float32)}, tmp_path / f"{name}.safetensors")
    return [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]


def test_weights_in_one_of_the_files_in_all_or_in_one_each(tmp_path: Path, files: list[Path]) -> None:
    assert check_tensor_roots(tmp_path, [binding(files[1])]) == ["b.safetensors"]
    assert check_tensor_roots(tmp_path, [binding(*files)]) == ["a.safetensors", "b.safetensors"]
    both = [binding(files[0]), binding(files[1], name="network_2")]
    assert check_tensor_roots(tmp_path, both) == ["a.safetensors", "b.safetensors"]


def test_other_weights_are_refused(tmp_path: Path, files: list[Path]) -> None:
    wanted = [binding(*files), binding(files[0])]
    save_file({"a": np.zeros(3, np.float32)}, files[0])
    for denoiser in wanted:
        with pytest.raises(WeightsMismatch, match=r"network: the weights in .* have tensor root sha256:"):
            check_tensor_roots(tmp_path, [denoiser])
    files[1].write_bytes(files[0].read_bytes())
    with pytest.raises(UnsafeWeights, match="in another file too"):
        check_tensor_roots(tmp_path, [wanted[0]])


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    denoiser = DenoiserBinding(
        name="network", class_name="Net", tensor_root="sha256:" + "0" * 64, architecture="sha256:" + "0" * 64
    )
    with pytest.raises(WeightsMissing, match="holds no safetensors file"):
        check_tensor_roots(tmp_path, [denoiser])
