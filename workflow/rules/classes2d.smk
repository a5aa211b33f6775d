# Stage classes2d: class averages and the particles worth keeping.
# Needs: the particles of all batches. Leaves: class averages, their features, kept and rejected particles with reasons.
# Steps: classify_2d -> select_classes_2d.

# A person's choice of classes, if there is one, is an input like any other.
DECISION = plan.decision("classes2d.yaml") or []


rule classify_2d:
    input:
        particles=expand("particles/extract_particles/{batch}_particles.star", batch=BATCHES),
    output:
        particles="classes2d/classify_2d/particles.star",
        classes="classes2d/classify_2d/classes.mrcs",
        model="classes2d/classify_2d/model.star",
        history="classes2d/classify_2d/history.tsv",
    log:
        "logs/classes2d/classify_2d.log",
    benchmark:
        "benchmarks/classes2d/classify_2d.tsv"
    threads: 32
    resources:
        mem_mb=6000,
        runtime=480,
        gpu=plan.gpus("classify_2d"),
    params:
        step=plan.params("classify_2d"),
        run=plan.run("classify_2d"),
        code=plan.code("classify_2d"),
    script:
        "../scripts/classes2d/classify_2d.py"


rule select_classes_2d:
    input:
        particles=rules.classify_2d.output.particles,
        classes=rules.classify_2d.output.classes,
        model=rules.classify_2d.output.model,
        decision=DECISION,
    output:
        particles="classes2d/select_classes_2d/particles.star",
        rejected="classes2d/select_classes_2d/rejected.star",
        class_features="classes2d/select_classes_2d/class_features.star",
        selection="classes2d/select_classes_2d/selection.yaml",
    log:
        "logs/classes2d/select_classes_2d.log",
    benchmark:
        "benchmarks/classes2d/select_classes_2d.tsv"
    threads: 2
    resources:
        mem_mb=3000,
        runtime=60,
        gpu=plan.gpus("select_classes_2d"),
    params:
        step=plan.params("select_classes_2d"),
        run=plan.run("select_classes_2d"),
        code=plan.code("select_classes_2d"),
    script:
        "../scripts/classes2d/select_classes_2d.py"
