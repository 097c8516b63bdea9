"""A report.json made up for tests: every key, few values."""


def report_content(per_class, curve, name="demo"):
    """The content of a report.json, with null for what is unknown; ``name`` is the run's, and a view's."""
    scores = {"map50": 0.25, "map50_area": 0.2, "map50_11": 0.3, "map50_95": 0.1, "low": 0.1, "high": 0.4}
    rule = {"map50": 0.25, "low": None, "high": None, "against": {}}
    gap = {"difference": 0.01, "low": -0.1, "high": 0.2}
    members = [{"run": "a", "views": ["plain", name], "weight": 1.0, "folds": 1}]
    fusion, decision = {"method": "suppress", "iou": 0.3}, {"rule": "auto", "threshold": 0.0}
    curve_points = {"at": [0.0, 1.0], "p": [0.1, 0.9], "trust": 0.5}
    calibration = {
        "constant": 0.1,
        "score": 1.0,
        "rival": -0.1,
        "agreement": 0.2,
        "pooled": curve_points,
        "terms": {"Mass": {"offset": 0.1, "size": 0.2, "square": 0.3}},
        "curves": {"Mass": curve_points},
        "extra": {name: {"factor": 0.1, "usual": -2.0, "missing": 0.0, "lowest": -9.0, "highest": 9.0}},
    }
    part = {"answers": 3, "gain": 0.2}
    lost = {"map50": 0.25, "boxes": 7, "found": 3, "causes": {"missed": {"count": 4, "gain": None}}}
    return {
        "run": name, "kit_version": "0.1.0", "weights": {"kept": "best", "sha256": {name: "ab" * 32}},
        "training": [{"epoch": 1, "epochs": 2, "chosen_map50": 0.2, "last_map50": 0.2, "last_ten_low": None,
                      "last_ten_high": 0.2, "last_ten_sd": None}],
        "detections_sha256": "ab" * 32,
        "made_from": {"detections_sha256": "ab" * 32, "mapping_sha256": None, "members": members,
                      "expected_ids": 170, "fusion": fusion, "decision": decision},
        "images": {"folds": 1, "training": 1234, "validation": 6, "validation_single_box": 5, "boxes": 7,
                   "test_patients_in_train_share": 0.25},
        "many_box": {**scores, "images": 6, "boxes": 7},
        "one_box": {**scores, "prior_map50": 0.019, "images": 5, "fallbacks": 2},
        "expected_on_leaderboard": {"mean": 0.2, "low": 0.1, "high": 0.3, "images": 170, "draws": 400,
                                    "replacement": True},
        "decision": {"chosen": "score", "rules": {"calibrated": rule | {"against": {"score": gap}}, "score": rule},
                     "oracle": {"map50": 0.9}, "random": {"map50": 0.01}, "prior": {"map50": None},
                     "rule": {"name": "score", "calibration": calibration, "frequency": {"Mass": 1.0}},
                     "knobs": decision},
        "losses": {"many_box": lost, "one_box": lost},
        "per_class": per_class, "threshold": {"best": 0.0, "one_box_best": 0.0, "applied": 0.0, "curve": curve},
        "fusion": fusion, "members": members,
        "fusion_choice": {
            "used": {"method": "wbf", "iou": 0.4, "skip_score": 0.05}, "usual": {**fusion, "skip_score": 0.0},
            "by_group": [], "best_by_group": [],
            "tried": [{**fusion, "skip_score": 0.0, "map50": 0.125},
                      {"method": "wbf", "iou": 0.4, "skip_score": 0.05, "map50": None}],
        },
        "devices": {name: {"kept": False, "with": 0.2, "without": None, "why": name,
                           "gain": {"value": None, "low": -0.1, "high": 0.2}}},
        "prior": {"ranked": [{"label": "Mass", "box": [0.1, 0.1, 0.9, 0.9], "hit_rate": 0.5, "value": 0.1}]},
        "ceiling": {"chosen": 0.25, "oracle": 0.9, "image_ranking": part, "candidate": part, "wrong_class": part,
                    "without_candidate": 2},
        "places": {"Mass": {key: {"mean": 0.5, "deviation": 0.1} for key in ("x", "y", "width", "height")}},
        "box_scale": {"pooled": {"width": 0.9, "height": 1.1}, "classes": {"Mass": {"width": 0.8, "height": 1.25}}},
    }  # fmt: skip


def class_scores(ap50):
    return {"ap50": ap50, "ap50_area": ap50, "ap50_11": ap50, "one_box_ap50": None, "boxes": 2, "detections": 3,
            "low": ap50, "high": ap50, "one_box_low": None, "one_box_high": None}  # fmt: skip
