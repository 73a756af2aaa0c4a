"""Words that releases are made of, and words of the trade: never taken for a person's name."""

from __future__ import annotations

#: Names of fields, keys and columns that ddiseg writes into a release.
FIELDS = frozenset([
    "accepted", "annotations", "annotator", "area", "attributes", "background", "bbox", "by_tone", "bytes",
    "categories", "category_id", "classes", "color", "colour", "content", "content_hash", "counts",
    "created_at", "dataset", "datasets", "date_created", "ddiseg", "ddiseg_version", "description",
    "diagnosis", "expected_iou", "file_name", "files", "fitzpatrick", "format", "fullname", "group", "height", "hole_fill",
    "id", "image", "image_id", "images", "index", "info", "iscrowd", "labelled_classes", "left_out", "lesion",
    "licence", "license", "licenses", "malignant", "mapping", "mask", "mask_created_at", "mask_hash", "masks",
    "metadata", "model", "name", "names", "parent", "parent_annotator", "partly_labelled", "path", "patient",
    "photographs", "predictions", "protocol", "protocol_version", "reason", "reviewer", "rgb", "segmentation",
    "sha256", "size", "source", "state", "subset", "subsets", "supercategory", "synthetic", "tone",
    "tone_source", "uncertainty", "unlabelled", "unlabelled_pixels", "url", "version", "width", "with_class",
    "year",
])  # fmt: skip

#: Values, file names, endings and prefixes of pseudonyms that ddiseg writes.
_VALUES = frozenset([
    "coco", "png", "sddi", "npy", "json", "csv", "txt", "jpg", "jpeg", "tif", "tiff", "webp", "bmp", "gif",
    "heic", "heif", "avif", "svg", "true", "false", "null", "none", "pseudonyms", "original", "same",
    "stretched", "img", "person", "img_", "label", "labels", "release", "unknown", "photograph",
])  # fmt: skip

#: The texts of a release: LICENCE.txt and the description of COCO.
_PROSE = frozenset([
    "licences", "and", "sources", "not", "recorded", "ask", "the", "source", "before", "you", "pass", "this",
    "on", "photographs", "in", "folder", "stay", "under", "licence", "of", "their", "dataset", "masks",
    "were", "drawn", "from", "them", "may", "be", "used", "as", "that", "allows", "holds", "only", "get",
    "name", "each", "whatever", "publish", "predictions", "prediction", "a", "model", "no", "person", "has",
    "reviewed", "they", "are", "marked", "accepted", "research", "output", "diagnosis", "by", "second",
    "material", "pixels", "without", "an", "annotation", "or", "where", "some", "its", "mask", "can't", "be",
    "read", "photograph", "license", "cc", "org", "com", "http", "https", "www",
])  # fmt: skip

#: What people are called by their task, and what ids are built of; no name of anybody.
_ROLES = frozenset([
    "annotator", "annotators", "author", "authors", "case", "cases", "clinic", "clinical", "clinician",
    "clinicians", "cohort", "consultant", "control", "customer", "derm", "dermatologist", "dermatologists",
    "dermatology", "doctor", "expert", "experts", "external", "female", "hospital", "human", "internal",
    "labeller", "labelers", "labellers", "labeler", "medical", "nurse", "observer", "participant", "patients",
    "people", "persons", "phantom", "phantoms", "physician", "proband", "project", "rater", "raters",
    "reader", "readers", "resident", "reviewers", "senior", "junior", "series", "specialist", "student",
    "students", "study", "subject", "subjects", "synthetic", "system", "tester", "team", "trial",
    "university", "user", "users", "visit", "volunteer", "admin", "example", "group", "site", "centre",
    "center",
])  # fmt: skip

#: Words of diagnoses and of places on the body.
MEDICAL = frozenset([
    "abdomen", "acral", "actinic", "ankle", "arm", "back", "basal", "basalioma", "benign", "bowen", "breast",
    "carcinoma", "cell", "cheek", "chest", "cyst", "dermatitis", "dermatofibroma", "dysplastic", "ear",
    "eczema", "elbow", "face", "finger", "foot", "forearm", "forehead", "hand", "head", "hemangioma",
    "haemangioma", "hip", "indeterminate", "keratosis", "knee", "left", "leg", "lentigo", "lesion",
    "malignant", "maligna", "melanoma", "melanocytic", "melanosis", "metastasis", "mole", "naevus", "neck",
    "nevus", "nodular", "nose", "precancer", "psoriasis", "right", "scalp", "scar", "seborrheic",
    "seborrhoeic", "shoulder", "situ", "skin", "solar", "squamous", "superficial", "spreading", "thigh",
    "toe", "trunk", "tumor", "tumour", "ulcer", "vascular", "wart", "wrist", "invasive", "junctional",
    "compound", "dermal", "intradermal", "blue", "spitz", "congenital", "atypical", "pigmented", "amelanotic",
    "lentiginous",
])  # fmt: skip

WORDS = FIELDS | _VALUES | _PROSE | _ROLES | MEDICAL
