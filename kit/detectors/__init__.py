"""Networks by name, their weights, and inference: from images to raw detections."""
