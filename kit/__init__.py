"""kit: find pathologies on chest X-rays, from the download to a scored submission.

The map of the package, top down (a module imports only what stands below its own line):

    demo           the whole road once
    verbs          what each task does, as functions from a workspace to a result
    report         the scores of a run, its report.json and pages   audit, audit_report  what is wrong with the data
    comparison     two runs: better, worse or noise                scoring  held-out images on the scored path
    path           judge, join folds                               choice   the rules of the one box, which wins
    ensemble       runs made of runs                               adoption, coco   runs made of a file
    store          a run's detections, all folds                   members  whose detections
    splits         what is held out
    training       the only module that imports Lightning          explore  every figure and HTML page
    inference      weights + images -> raw detections
    decision       one box per ID                                  tta      views: name, apply, invert
    intervals      bootstrap by patient                            losses   what was lost, by its cause
    calibration    p(true positive) in plain numbers               overlaps the nearest true box
    evaluation     mAP, per class, threshold curve                 model    detectors by name; timm_detectors
    data           tables in, patients, samples, pixel cache       runs     the run folder
    submission     numbered folders, manifest, index               transforms  the augmentations
    fusion         suppression, weighted boxes fusion              phantoms the synthetic competition
    download       the competition's files in data/                archive  a zip from outside, unpacked safely
    schemas        the tables as pandera schemas                   schedule the arithmetic of the recipe
    upload         exactly once: prepare, send, wait               scores   local against public
    attempts       what became of uploads                          preview  what would be sent
    kernel         push, status, pull                              session  what a kernel does on Kaggle
    kaggle_api     a competition on Kaggle                         kaggle_kernels  kernels there; kernel_script
    kaggle_client  Kaggle's client, guarded                        refusals what Kaggle answers, in our words
    config         every knob                                      images   files to grey pixels
    boxes          pure geometry                                   cells, rules, pixels, canvas, charts, pages
    errors, files, progress, deadlines, credentials, checkout      duplicates, radiographs, memory, loss_check
    score_charts, run_page
"""

__version__ = "0.1.0"
