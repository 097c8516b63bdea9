"""DICOM files written by pydicom: a radiograph's attributes, and those that a test gives."""

import numpy as np
import pytest

SYNTAXES = {
    "native": "1.2.840.10008.1.2.1",
    "jpeg2000": "1.2.840.10008.1.2.4.90",
    "jpegls": "1.2.840.10008.1.2.4.80",
    "rle": "1.2.840.10008.1.2.5",
}


def write_dicom(path, stored, syntax="native", bits=12, **elements):
    """Write stored values (h, w) as a DICOM file; ``elements`` replace the usual ones, None removes one."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import generate_uid

    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = SYNTAXES["native"]
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"  # digital X-ray
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = generate_uid()
    file.Rows, file.Columns = stored.shape[:2]
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated = stored.itemsize * 8
    file.BitsStored, file.HighBit = bits, bits - 1
    file.PixelRepresentation = int(stored.dtype.kind == "i")
    file.PatientID, file.PatientName = "P-0007", "Doe^Jane"
    file.PixelData = stored.tobytes()
    for name, value in elements.items():
        if value is None:
            delattr(file, name)
        else:
            setattr(file, name, value)
    if syntax != "native":
        _compress(file, stored, syntax)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, file, enforce_file_format=True)
    return path


def _compress(file, stored, syntax):
    """JPEG 2000 by openjpeg itself: pydicom's encoder wants one package more."""
    from pydicom.encaps import encapsulate

    if syntax != "jpeg2000":
        file.compress(SYNTAXES[syntax])
        return
    openjpeg = pytest.importorskip("openjpeg.utils")
    grey = 2  # its number for the colour space
    code = openjpeg.encode_array(np.ascontiguousarray(stored), file.BitsStored, grey)
    file.PixelData = encapsulate([code])
    file["PixelData"].is_undefined_length = True
    file.file_meta.TransferSyntaxUID = SYNTAXES[syntax]


def lut(entries, first=0, bits=16):
    """A sequence with a lookup table (LUTDescriptor, LUTData), for VOILUTSequence and ModalityLUTSequence."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item.add_new("LUTData", "US", [int(value) for value in entries])
    return Sequence([item])
