# Stage classes2d: class averages and the particles worth keeping.
# Needs: the particles of all batches. Leaves: class averages, their features, kept and rejected particles with reasons.
# Steps: classify_2d -> select_classes_2d.


rule classify_2d:
    input:
        particles=ports.all("particles"),
    output:
        particles="classes2d/classify_2d/particles.star",
        classes="classes2d/classify_2d/classes.mrcs",
        model="classes2d/classify_2d/model.star",
        history="classes2d/classify_2d/history.tsv",
    script:
        "../scripts/run_step.py"


rule select_classes_2d:
    input:
        particles="classes2d/classify_2d/particles.star",
        classes="classes2d/classify_2d/classes.mrcs",
        model="classes2d/classify_2d/model.star",
        # a person's choice of classes, if there is one, is an input like any other
        decision=plan.decision("classes2d.yaml") or [],
    output:
        particles="classes2d/select_classes_2d/particles.star",
        rejected="classes2d/select_classes_2d/rejected.star",
        class_features="classes2d/select_classes_2d/class_features.star",
        selection="classes2d/select_classes_2d/selection.yaml",
    script:
        "../scripts/run_step.py"
