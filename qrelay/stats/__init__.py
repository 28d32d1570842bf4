"""Statistics on labels: agreement with people, calibration, intervals. Arrays in, numbers out; no I/O.

    agreement     AUC, Cohen's kappa, confusion matrix, thresholds
    alpha         Krippendorff's alpha
    calibration   scores to probabilities and grades, and how good those are; folds over queries
    intervals     bootstraps over queries, intervals of shares
    powered       prediction-powered means: people's values of a sample, a judge's of everything
    columns       what is accepted as input, checked in one place

Whatever is empty, of unequal length or not a number is refused with `InputError`, which says what to do. Needs numpy
and scipy; fits need scikit-learn, alpha the package krippendorff. Import the modules where they are used.
"""
