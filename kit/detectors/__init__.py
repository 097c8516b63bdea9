"""Networks by name, weights in and out, images to raw detections."""
