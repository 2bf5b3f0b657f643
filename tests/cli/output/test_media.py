import pytest

np = pytest.importorskip("numpy")
imageio = pytest.importorskip("imageio.v3")

from budc.cli.output.media import write_media, write_new_media  # noqa: E402


def clip(frames, height, width, value=0.5):
    return np.full((frames, height, width, 3), value, dtype=np.float32)


def test_png_has_a_row_for_each_clip_enlarged(tmp_path):
    path = tmp_path / "x.png"
    write_media(path, [[("", clip(5, 16, 24, 0.0))], [("", clip(5, 16, 24, 1.0))]])
    picture = imageio.imread(path)
    assert picture.shape == (2 * 16 * 4, 5 * 24 * 4, 3)
    assert picture[:64].max() == 0
    assert picture[64:].min() == 255


def test_long_clips_are_thinned_out_to_first_and_last(tmp_path):
    frames = clip(41, 256, 256) * np.linspace(0, 2, 41, dtype=np.float32)[:, None, None, None]
    write_media(tmp_path / "x.png", [[("", frames)]])
    picture = imageio.imread(tmp_path / "x.png")
    assert picture.shape == (256, 9 * 256, 3)
    assert (picture[0, 0, 0], picture[0, -1, 0]) == (0, 255)


def test_labels_are_drawn_above(tmp_path):
    write_media(tmp_path / "x.png", [[("full run", clip(1, 64, 64, 0.0)), ("policy", clip(1, 64, 64, 0.0))]])
    picture = imageio.imread(tmp_path / "x.png")
    height = picture.shape[0] // 2
    assert height > 256
    for band in (picture[: height - 256], picture[height:-256]):
        assert band.max() > 200
    assert picture[height - 256 : height].max() == 0


def test_video_has_columns_and_even_sizes(tmp_path, read_video):
    path = tmp_path / "x.mp4"
    write_media(path, [[("", clip(6, 259, 301, 0.1)), ("", clip(6, 259, 301, 0.9))]])
    video = read_video(path, 260, 602)
    assert len(video) == 6
    assert video[:, 10:-10, 10:290].mean() < 60
    assert video[:, 10:-10, 312:590].mean() > 190


def test_a_new_file_replaces_none(tmp_path):
    (tmp_path / "x.png").write_bytes(b"mine")
    rows = [[("", clip(1, 16, 16))]]
    made = [write_new_media(tmp_path, "x", ".png", rows) for _ in range(2)]
    assert [path.name for path in made] == ["x-2.png", "x-3.png"]
    assert (tmp_path / "x.png").read_bytes() == b"mine"
    assert made[0].read_bytes() == made[1].read_bytes() != b""


@pytest.mark.parametrize(("suffix", "kind"), [(".gif", "GIF"), (".webp", "WEBP")])
def test_animations_have_all_frames(tmp_path, suffix, kind):
    from PIL import Image

    shades = np.linspace(0, 1, 6, dtype=np.float32)[:, None, None, None]
    write_media(tmp_path / f"x{suffix}", [[("", clip(6, 256, 300, 1.0) * shades), ("", clip(6, 256, 300))]])
    with Image.open(tmp_path / f"x{suffix}") as animation:
        assert (animation.format, animation.n_frames, animation.size) == (kind, 6, (600, 256))
        animation.seek(5)
        assert animation.convert("RGB").getpixel((10, 10)) == pytest.approx((255,) * 3, abs=4)


def test_a_jpg_is_a_row_of_frames(tmp_path):
    from PIL import Image

    write_media(tmp_path / "x.JPG", [[("", clip(3, 256, 256))]])
    with Image.open(tmp_path / "x.JPG") as picture:
        assert (picture.format, picture.size) == ("JPEG", (768, 256))


def test_a_label_has_its_lines_and_is_cut_to_the_picture(tmp_path):
    long = "policy, 10 NFE, 0.52 s\n" + "a large crimson circle at the left over stripes " * 4
    write_media(tmp_path / "x.png", [[(long, clip(1, 256, 256, 0.0))]])
    picture = imageio.imread(tmp_path / "x.png")
    assert picture.shape[0] == 256 + 2 * 18
    assert picture[18:36, :248].max() > 200
    assert picture[18:36, 252:].max() < 60
