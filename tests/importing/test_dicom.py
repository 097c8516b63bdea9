"""DICOM files, written by pydicom: levels, windows, tables, compressions; bad ones are refused in words."""

import sys
import warnings

import numpy as np
import pytest
from dicom_files import SYNTAXES, lut, write_dicom

from kit.core.errors import KitError
from kit.data.images import ImageError
from kit.importing.dicom import decode_dicom, dicom_facts, patient_mark, require_pydicom

pytest.importorskip("pydicom")
RAMP = np.linspace(0, 4095, 48 * 64).astype(np.uint16).reshape(48, 64)  # 12 bits, each row brighter
WHOLE = np.rint(RAMP * (255 / 4095))


def decoded(path, stored=RAMP, **elements):
    return decode_dicom(write_dicom(path / "a.dcm", stored, **elements))


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_compression_has_the_same_pixels(syntax, tmp_path):
    assert np.abs(decoded(tmp_path, syntax=syntax) - WHOLE).max() <= 1


def test_monochrome1_is_inverted(tmp_path):
    np.testing.assert_array_equal(
        decoded(tmp_path, PhotometricInterpretation="MONOCHROME1"), 255 - decoded(tmp_path).astype(int)
    )


@pytest.mark.parametrize(
    ("stored", "bits"),
    [(RAMP * 16, 16), (RAMP.astype(np.int16) - 2000, 13), ((RAMP // 16).astype(np.uint8), 8)],
    ids=["16 bits", "signed", "8 bits"],
)
def test_any_depth_becomes_the_whole_range(stored, bits, tmp_path):
    assert np.abs(decoded(tmp_path, stored, bits=bits) - WHOLE).max() <= 1


def test_a_marker_does_not_flatten_the_image(tmp_path):
    marked = RAMP // 8
    marked[0, :5] = 4095
    grey = decoded(tmp_path, marked)
    assert np.ptp(grey[1:]) > 230 and (grey[0, :5] == 255).all()


def test_the_first_window_is_applied_after_the_rescale(tmp_path):
    """Of 2 x - 1000 the levels 1000 to 2000 are stored as 1000 to 1500; PS3.3 C.11.2.1.2.1."""
    grey = decoded(
        tmp_path, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=[1500, 40], WindowWidth=[1000, 80]
    )
    expected = np.clip((2.0 * RAMP - 1000 - 1499.5) / 999 + 0.5, 0, 1) * 255
    assert np.abs(grey - expected).max() <= 1
    assert (grey[RAMP <= 1000] == 0).all() and (grey[RAMP > 1500] == 255).all()


def test_a_voi_table_goes_before_the_window_and_counts_from_its_first_level(tmp_path):
    falling = lut(np.linspace(60000, 0, 2048), first=1024)
    grey = decoded(tmp_path, VOILUTSequence=falling, WindowCenter=100, WindowWidth=10)
    expected = 255 * (1 - np.clip(RAMP - 1024.0, 0, 2047) / 2047)
    assert np.abs(grey - expected).max() <= 1


def test_a_voi_table_is_looked_up_by_whole_numbers_after_a_rescale(tmp_path):
    with_rescale = decoded(tmp_path, VOILUTSequence=lut(range(4096)), RescaleSlope=1, RescaleIntercept=0)
    np.testing.assert_array_equal(with_rescale, decoded(tmp_path))


def test_an_overlay_in_the_unused_bits_is_cut_off(tmp_path):
    lettered = RAMP.copy()
    lettered[:10, :10] |= 0x8000
    pydicom = pytest.importorskip("pydicom")
    path = write_dicom(tmp_path / "a.dcm", lettered)
    dataset = pydicom.dcmread(path)
    dataset.add_new(0x60000102, "US", 15)
    dataset.save_as(path)
    np.testing.assert_array_equal(decode_dicom(path), decoded(tmp_path / "b"))


def test_a_constant_image_is_black(tmp_path):
    assert not decoded(tmp_path, np.full((4, 4), 7, np.uint16)).any()


@pytest.mark.parametrize(
    ("elements", "found"),
    [
        ({"PixelData": None}, "no pixels"),
        ({"PixelData": b""}, "no pixels"),
        ({"PixelData": RAMP.tobytes()[:-9]}, "number of bytes of pixel data is less than expected"),
        ({"Rows": [48, 48]}, "Rows is no whole number"),
        ({"Rows": None}, "a DICOM file without an image"),
        ({"NumberOfFrames": 3}, "3 frames, not one"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, r"colours \(RGB, 3 per pixel\)"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colours"),
        ({"BitsAllocated": 32}, "32 bits a pixel, not 8 or 16"),
        ({"BurnedInAnnotation": "YES"}, "letters burnt into the pixels"),
        ({"WindowCenter": 5, "WindowWidth": 0}, "Window Width must be greater"),
        ({"Rows": 60000, "Columns": 60000}, "a decompression bomb"),
    ],
)
def test_what_is_no_grey_image_of_one_frame_is_refused_in_words(elements, found, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of what is written
        path = write_dicom(tmp_path / "a.dcm", RAMP, **elements)
    with pytest.raises(ImageError, match=found):
        decode_dicom(path)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused_wherever_it_ends(syntax, share, tmp_path):
    noise = np.random.default_rng(1).integers(0, 4096, (48, 64)).astype(np.uint16)
    path = write_dicom(tmp_path / "a.dcm", noise, syntax=syntax)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ImageError):
        decode_dicom(path)


@pytest.mark.parametrize("content", [b"", b"hello", bytes(128) + b"DICM", bytes(128) + b"DICM" + b"\xff" * 99])
def test_what_is_no_dicom_file_is_refused(content, tmp_path):
    path = tmp_path / "a.dcm"
    path.write_bytes(content)
    with pytest.raises(ImageError):
        dicom_facts(path)


def test_hostile_values_reach_no_message_and_no_file(tmp_path, capfd):
    evil = "../../evil\x1b[2J"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = write_dicom(tmp_path / "a.dcm", RAMP, PatientName="Doe^Jane", PatientID=evil, PixelData=b"1",
                           SOPInstanceUID="../../x", StudyInstanceUID="1." * 60)  # fmt: skip
    assert dicom_facts(path)[2].startswith("../../evil")  # only a hash of it goes on
    with pytest.raises(ImageError) as refused:
        decode_dicom(path)
    captured = capfd.readouterr()
    for text in (str(refused.value), captured.out, captured.err):
        assert "evil" not in text and "Doe" not in text
    assert [found.name for found in tmp_path.iterdir()] == ["a.dcm"]


@pytest.mark.parametrize("word", ["", "  ", "0", "Anonymous", "UNKNOWN"])
def test_a_word_for_nobody_is_no_patient(word, tmp_path):
    assert dicom_facts(write_dicom(tmp_path / "a.dcm", RAMP, PatientID=word)) == (64, 48, "")


def test_a_patient_s_mark_says_nothing_without_the_secret():
    assert patient_mark("", b"secret") == ""
    assert patient_mark("P1", b"secret") == patient_mark("P1", b"secret") != patient_mark("P2", b"secret")
    assert patient_mark("P1", b"secret") != patient_mark("P1", b"another")


def test_without_pydicom_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(KitError) as refused:
        require_pydicom()
    assert "pip install -e '.[dicom]'" in refused.value.do
    monkeypatch.undo()  # as after the advice
    require_pydicom()
