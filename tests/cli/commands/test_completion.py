import json

import pytest
from click.shell_completion import BashComplete

from budc.cli.root import root


def completed(*words):
    *given, last = words
    items = BashComplete(root, {}, "budc", "_BUDC_COMPLETE").get_completions(list(given), last)
    return [item.value for item in items]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(budc, shell):
    outcome = budc("completion", shell)
    assert outcome.code == 0
    assert f"_BUDC_COMPLETE={shell}_complete" in outcome.out
    assert budc("completion", "csh").code == 2


def test_values_are_completed():
    assert completed("comp") == ["compile", "completion"]
    assert completed("compile", "--model", "flux-") == ["flux-nano"]
    # A profile or a folder of the user's own.
    assert completed("compile", "--model", "./mine") == ["./mine"]
    assert completed("compile", "--search", "j") == ["joint"]
    assert completed("plan", "--effort", "b") == ["balanced"]
    assert completed("evaluate", "x", "--metrics", "psnr,ss") == ["psnr,ssim", "psnr,ssimulacra2"]
    assert "psnr,psnr" not in completed("evaluate", "x", "--metrics", "psnr,")
    assert completed("evaluate", "x", "--against", "tea") == ["teacache"]
    # These two are not for users.
    assert not [name for name in completed("compile", "--search", "g") if name.startswith("given")]


def test_nothing_heavy_is_imported(tmp_path):
    import subprocess
    import sys

    code = (
        "import json, sys\nfrom click.shell_completion import BashComplete\nfrom budc.cli.root import root\n"
        "found = BashComplete(root, {}, 'budc', 'X').get_completions(['evaluate', '--against'], '')\n"
        "print(json.dumps([len(found), sorted({'torch', 'numpy', 'rich'} & sys.modules.keys())]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, heavy = json.loads(done.stdout)
    assert count > 5
    assert heavy == []
