"""Boxed sets as their publishers write them, made of the same pictures and boxes. Each function names its source.

The pictures are 8-bit arrays by name without ending; boxes have image_id (such a name), corners in pixels, label.
"""

import csv
import json
from pathlib import Path

import numpy as np
from dicom_files import write_dicom
from PIL import Image

CORNERS = ["x_min", "y_min", "x_max", "y_max"]


def vindr(folder, pictures, boxes, readers=("R9", "R10", "R8")):
    """https://www.kaggle.com/c/vinbigdata-chest-xray-abnormalities-detection/data: train.csv, train/ID.dicom.

    Three readers a picture; the second and third draw each box a pixel to the right and to the left.
    """
    rows = []
    for name in pictures:
        of_image = boxes[boxes["image_id"] == name]
        for reader, shift in zip(readers, (0, 1, -1), strict=True):
            rows += [
                (name, label, 1, reader, x0 + shift, y0, x1 + shift, y1)
                for _, x0, y0, x1, y1, label in of_image[["image_id", *CORNERS, "label"]].itertuples(index=False)
            ]
            rows += [(name, "No finding", 14, reader, "", "", "", "")] * of_image.empty
    dicoms(folder / "train", pictures, ".dicom", PatientID=None)
    return table(folder / "train.csv", "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max", rows)


def rsna(folder, pictures, boxes):
    """https://www.kaggle.com/c/rsna-pneumonia-detection-challenge/data: stage_2_train_labels.csv; one label."""
    rows = [(name, x0, y0, x1 - x0, y1 - y0, 1) for name, x0, y0, x1, y1 in of_boxes(boxes)]
    rows += [(name, "", "", "", "", 0) for name in pictures if name not in set(boxes["image_id"])]
    for name in pictures:  # there a PatientID is a picture's name
        dicoms(folder / "stage_2_train_images", {name: pictures[name]}, ".dcm", PatientID=name)
    return table(folder / "stage_2_train_labels.csv", "patientId,x,y,width,height,Target", rows)


def siim(folder, pictures, boxes):
    """https://www.kaggle.com/c/siim-covid19-detection/data: image and study tables; train/STUDY/SERIES/IMAGE.dcm.

    A study of two pictures each; the last study is negative.
    """
    images, studies, names = [], {}, list(pictures)
    for number, name in enumerate(names):
        study = f"{number // 2:012x}"
        of_image = list(of_boxes(boxes[boxes["image_id"] == name]))
        label = " ".join(f"opacity 1 {x0} {y0} {x1} {y1}" for _, x0, y0, x1, y1 in of_image) or "none 1 0 0 1 1"
        dicts = [{"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0} for _, x0, y0, x1, y1 in of_image]
        images.append((f"{name}_image", dicts or "", label, study))
        studies[study] = studies.get(study, False) or bool(of_image)
        dicoms(folder / "train" / study / "0a1b", {name: pictures[name]}, ".dcm", PatientID=None)
    table(folder / "train_study_level.csv",
          "id,Negative for Pneumonia,Typical Appearance,Indeterminate Appearance,Atypical Appearance",
          [(f"{study}_study", int(not boxed), int(boxed), 0, 0) for study, boxed in studies.items()])  # fmt: skip
    return table(folder / "train_image_level.csv", "id,boxes,label,StudyInstanceUID", images)


def chestx_det(folder, pictures, boxes):
    """https://github.com/Deepwise-AILab/ChestX-Det-Dataset: ChestX_Det_train.json, ChestX_Det_test.json."""
    names = list(pictures)
    for part, some in (("train", names[::2]), ("test", names[1::2])):
        entries = []
        for name in some:
            of_image = boxes[boxes["image_id"] == name]
            corners = of_image[CORNERS].to_numpy().tolist()
            entries.append({"file_name": f"{name}.png", "syms": of_image["label"].tolist(), "boxes": corners,
                            "polygons": [[[x0, y0], [x1, y0], [x1, y1]] for x0, y0, x1, y1 in corners]},
                           )  # fmt: skip
        pngs(folder / f"{part}_data" / part, {name: pictures[name] for name in some})
        (folder / f"ChestX_Det_{part}.json").write_text(json.dumps(entries), encoding="utf-8")
    return folder / "ChestX_Det_train.json"


def nih(folder, pictures, boxes):
    """https://nihcc.app.box.com/v/ChestXray-NIHCC: BBox_List_2017.csv, Data_Entry_2017.csv, images_001/images/."""
    rows = [(f"{name}.png", label, x0, y0, x1 - x0, y1 - y0, "", "", "") for (name, x0, y0, x1, y1), label in
            labelled(boxes)]  # fmt: skip
    labels = boxes.groupby("image_id")["label"].agg(lambda labels: "|".join(sorted(set(labels))))
    entries = [(f"{name}.png", labels.get(name, "No Finding"), 0, 100 + number // 2, "058Y", "M", "PA", 2682, 2749,
                0.143, 0.143, "") for number, name in enumerate(pictures)]  # fmt: skip
    pngs(folder / "images_001" / "images", pictures)
    table(folder / "Data_Entry_2017.csv",
          "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
          "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],", entries)  # fmt: skip
    return table(folder / "BBox_List_2017.csv", "Image Index,Finding Label,Bbox [x,y,w,h],,,", rows)


def coco(folder, pictures, boxes):
    """https://cocodataset.org/#format-data: annotations/instances_train2017.json and train2017/."""
    names, labels = list(pictures), sorted(set(boxes["label"]))
    content = {
        "info": {}, "licenses": [],
        "images": [{"id": 7 + number, "file_name": f"{name}.png", "height": pictures[name].shape[0],
                    "width": pictures[name].shape[1]} for number, name in enumerate(names)],
        "categories": [{"id": 3 + number, "name": label, "supercategory": "finding"}
                       for number, label in enumerate(labels)],
        "annotations": [
            {"id": number, "image_id": 7 + names.index(name), "category_id": 3 + labels.index(label), "iscrowd": 0,
             "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "segmentation": []}
            for number, ((name, x0, y0, x1, y1), label) in
            enumerate(labelled(boxes), start=1)
        ],
    }  # fmt: skip
    pngs(folder / "train2017", pictures)
    path = folder / "annotations" / "instances_train2017.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def yolo(folder, pictures, boxes):
    """https://docs.ultralytics.com/datasets/detect: data.yaml; train and val name one folder, as small sets do."""
    labels = sorted(set(boxes["label"]))
    pngs(folder / "images" / "train", pictures)
    (folder / "labels" / "train").mkdir(parents=True)
    for name in set(boxes["image_id"]):
        height, width = pictures[name].shape
        of_image = boxes[boxes["image_id"] == name]
        lines = [f"{labels.index(label)} {(x0 + x1) / 2 / width:.9f} {(y0 + y1) / 2 / height:.9f} "
                 f"{(x1 - x0) / width:.9f} {(y1 - y0) / height:.9f}"
                 for (_, x0, y0, x1, y1), label in labelled(of_image)]  # fmt: skip
        (folder / "labels" / "train" / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    names = "".join(f"  {number}: {label}\n" for number, label in enumerate(labels))
    text = f"path: ../datasets/elsewhere\ntrain: images/train\nval: images/train\ntest:\n\nnames:\n{names}"
    (folder / "data.yaml").write_text(text, encoding="utf-8")
    return folder / "data.yaml"


def voc(folder, pictures, boxes):
    """http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html: corners count from 1."""
    place = folder / "VOCdevkit" / "VOC2012"
    pngs(place / "JPEGImages", pictures)
    (place / "Annotations").mkdir(parents=True)
    for name, picture in pictures.items():
        of_image = boxes[boxes["image_id"] == name]
        objects = "".join(
            f"<object><name>{label}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>"
            f"<bndbox><xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox>"
            "</object>"
            for (_, x0, y0, x1, y1), label in labelled(of_image)
        )
        height, width = picture.shape
        (place / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><folder>VOC2012</folder><filename>{name}.png</filename><size><width>{width}</width>"
            f"<height>{height}</height><depth>1</depth></size><segmented>0</segmented>{objects}</annotation>",
            encoding="utf-8",
        )
    return place / "Annotations"


WRITERS = {"vindr": vindr, "rsna": rsna, "siim": siim, "chestx-det": chestx_det, "nih": nih, "coco": coco,
           "yolo": yolo, "voc": voc}  # fmt: skip
ONE_LABEL = {"rsna": "Pneumonia", "siim": "opacity"}


def of_boxes(boxes):
    return boxes[["image_id", *CORNERS]].itertuples(index=False, name=None)


def labelled(boxes):
    return zip(of_boxes(boxes), boxes["label"], strict=True)


def table(path: Path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(f"{header}\n")
        csv.writer(file, lineterminator="\n").writerows(rows)
    return path


def pngs(folder, pictures):
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        Image.fromarray(picture).save(folder / f"{name}.png")


def dicoms(folder, pictures, ending, **elements):
    """12 bits of 16, the grey levels 0..255 as 0..4080."""
    for name, picture in pictures.items():
        write_dicom(folder / f"{name}{ending}", picture.astype(np.uint16) * 16, **elements)
