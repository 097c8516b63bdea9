"""The names of a competition's files in ``WORKSPACE/data``."""

TRAIN, TEST = "train", "test"  # folders of images
TABLE = "train.csv"
MAPPING = "ID_to_Image_Mapping.csv"
COMPETITION_FILES = (TRAIN, TEST, MAPPING, TABLE)  # in the order in which they appear: the table completes them
