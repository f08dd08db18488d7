"""The catalogue of causes: what each means, what in the files proves it, and what does not.

The reasoning is in `causes.py` and with the rules; a cause that they give has its page here.
"""

from __future__ import annotations

from bninspect.model.rule import Cause, CauseDoc, Fix
from bninspect.rules.fixes import (
    FLOAT32_FIXES,
    FREEZING_FIXES,
    MODE_FIXES,
    MOMENTUM_FIXES,
    REESTIMATE_FIXES,
    SAVER_FIXES,
    UPDATE_FIXES,
)
from bninspect.rules.samples import KERAS_FIT

_INFERENCE = "inference   gamma * (x - moving_mean) / sqrt(moving_variance + epsilon) + beta"
_NO_GRAPH = (
    "Keras files and object-based checkpoints keep no graph of the training; a graph without an"
    " optimizer, such as an export for inference, says nothing of training."
)

CAUSES: tuple[Cause, ...] = (
    Cause(
        name="update-ops-not-run",
        summary="the graph has update ops, and no training op depends on them",
        rules=("BN101", "BN102", "BN103", "BN107"),
        doc=CauseDoc(
            meaning=(
                "The layer was built in training mode and has ops that would move its statistics."
                " But nothing that a training step computes depends on them, so that a step runs"
                " them only where a script fetches them by hand."
            ),
            proof=(
                "The graph beside the checkpoint (.meta) or in a SavedModel. Update ops are found"
                " by the variable they assign, whatever they are called. Training ops are those of"
                " the train_op collection and all that the work of an optimizer ends in. None of"
                " them reaches the update ops over data and control inputs. The finding names both,"
                " and says whether UPDATE_OPS holds the updates."
            ),
            unproved=(
                f"{_NO_GRAPH} Where a training op does depend on the updates, what kept them from"
                " running (a placeholder that was fed False, a branch not taken, another graph) is"
                " not stored. Where something else that keeps a result depends on them, a loop may"
                " have run that by hand. Update ops that were fetched by hand in session.run moved"
                " the statistics, and there is no finding to explain, unless a placeholder switched"
                " them off: the finding names it, and what it was fed is not stored."
            ),
            why=(
                "The weights were trained with the statistics of each batch, and the averages that"
                " stand in for them at inference were never made."
            ),
            arithmetic=f"""\
update      moving_mean = m * moving_mean + (1 - m) * batch_mean
{_INFERENCE}

moving_mean of activations of mean 5, with a momentum m of 0.99:
after 500 updates that ran    5 * (1 - 0.99 ** 500) = 4.967
after 500 that did not        5 * (1 - 0.99 ** 0) = 0.000""",
            mistakes=(
                "minimize without tf.control_dependencies(update_ops)",
                (
                    "UPDATE_OPS collected before the layers were built: an empty list, silently, on"
                    " which nothing depends"
                ),
                (
                    "control_dependencies around the loss alone, which no gradient needs, or"
                    " opened when the train op was already built"
                ),
                "slim with optimizer.minimize instead of slim.learning.create_train_op",
                "Keras layers, whose updates are in model.updates and not in UPDATE_OPS",
                "several towers or optimizers, of which only one depends on the updates",
            ),
            fixes=(*UPDATE_FIXES[:4], *REESTIMATE_FIXES),
        ),
    ),
    Cause(
        name="built-with-training-false",
        summary="training ran with the layer in inference mode",
        rules=("BN101", "BN102", "BN103", "BN107"),
        doc=CauseDoc(
            meaning=(
                "While the model was trained the layer normalised by its stored statistics, as at"
                " inference, and had no ops to update them. gamma and beta were trained."
            ),
            proof=(
                "A stored Keras 2 configuration that calls the layer with training=False, to which"
                " Keras 2's fit keeps. Or a graph with an optimizer, in which no"
                " node updates the statistics and what the training ops compute uses them; a fused"
                " kernel with is_training=False says so too. Where the layer has gamma or beta and"
                " no optimizer changes either, the cause is layer-frozen."
            ),
            unproved=(
                f"{_NO_GRAPH} A mode that a placeholder chooses is not stored: neither is what the"
                " placeholder was fed. In Keras 3 fit overrides training=False of a functional"
                " model, and a loop of one's own leaves no trace."
            ),
            why=(
                "With initial statistics the layer normalises nothing, neither in training nor at"
                " inference. The two agree, so that predictions are consistent; but the network was"
                " trained without batch normalization. With pretrained statistics that is how"
                " fine-tuning is often done, and only a note."
            ),
            arithmetic=f"""\
{_INFERENCE}
training    the same

Initial statistics, activations of mean 5 and deviation 3, epsilon 0.001:
meant, x = 8                     (8 - 5) / sqrt(9 + 0.001) = 1.000
in training and inference        (8 - 0) / sqrt(1 + 0.001) = 7.996""",
            mistakes=(
                "tf.layers.batch_normalization without training=: its default is False",
                "is_training=False left over from an evaluation script",
                "Keras: BatchNormalization()(x, training=False) in a model that is to be trained",
            ),
            fixes=(
                *MODE_FIXES,
                Fix(
                    "Meant so",
                    "To train with the statistics of a pretrained model, load them before training,"
                    " and mind that gamma and beta are trained unless the layer is frozen.",
                ),
            ),
        ),
    ),
    Cause(
        name="layer-frozen",
        summary="the layer is not trainable, so that its statistics stand still",
        rules=("BN101", "BN102", "BN103", "BN105", "BN107"),
        doc=CauseDoc(
            meaning=(
                "The layer was excluded from training. Frozen layers are in inference mode (Keras"
                " since TensorFlow 2) or are built so; they keep what they started with."
            ),
            proof=(
                "A stored Keras configuration with trainable=false, of the layer or of a model"
                " around it. Or a graph with an optimizer, in which no node updates the statistics,"
                " what the training ops compute uses them, and no optimizer changes gamma or beta."
            ),
            unproved=(
                f"{_NO_GRAPH} Weights-only files have no configuration. Keras before 2.1.3"
                " updates the averages of a frozen layer too, so there trainable=false proves"
                " nothing. If gamma or beta moved, the layer was trained."
            ),
            why=(
                "With pretrained statistics it is right (BN107 is a note then). With initial ones"
                " the layer passes its input through, unnormalised."
            ),
            arithmetic=f"""\
{_INFERENCE}

Activations of mean 5 and deviation 3, epsilon 0.001, gamma 1, beta 0:
frozen with pretrained statistics, x = 8    (8 - 5) / sqrt(9 + 0.001) = 1.000
frozen as it was made, x = 8                (8 - 0) / sqrt(1 + 0.001) = 7.996""",
            mistakes=(
                "a backbone that is frozen although its pretrained weights were never loaded",
                "weights loaded by name, with a name that does not match",
                "trainable=False forgotten after a first phase of training",
            ),
            fixes=FREEZING_FIXES,
        ),
    ),
    Cause(
        name="too-few-updates",
        summary="the averages moved, but too few times to forget where they started",
        rules=("BN106",),
        doc=CauseDoc(
            meaning=(
                "After n updates with momentum m an average holds m^n of its initial value, and"
                " that is more than 5%."
            ),
            proof=(
                "m: the stored configuration, --momentum, or the graph's arithmetic. n: the stored"
                " step (times the updates that a step makes, by the graph), the count of TF1's"
                " Adam, or the variance of dead channels, which is m^n. The finding shows them and"
                " how many updates it takes."
            ),
            unproved=(
                "Without a momentum or a step nothing can be counted, and BN106 is not given. Nor"
                " where a variance shows more updates than the step counts (a fine-tuned or"
                " recompiled model), nor with zero-debias, which divides the initial value out."
            ),
            why="What is stored is partly the 0 and the 1 that the averages started from.",
            arithmetic="""\
moving_variance   m^n * 1 + (1 - m^n) * variance

Activations of variance 9:
m 0.99, n 500     0.99 ** 500 * 1 + (1 - 0.99 ** 500) * 9 = 8.947
m 0.999, n 500    0.999 ** 500 * 1 + (1 - 0.999 ** 500) * 9 = 4.149""",
            mistakes=(
                "the default momentum (Keras and tf.layers 0.99, slim 0.999) in a short training",
                "large batches or accumulated gradients: few steps an epoch",
                "a checkpoint from early in the training",
            ),
            fixes=MOMENTUM_FIXES,
        ),
    ),
    Cause(
        name="saver-omitted-statistics",
        summary="the model has the statistics, and they were not saved",
        rules=("BN201", "BN202"),
        doc=CauseDoc(
            meaning=(
                "The training had moving_mean and moving_variance as variables; what wrote the"
                " checkpoint was given a list of variables without them."
            ),
            proof=(
                "The graph beside the checkpoint has variables of these statistics, which the"
                " checkpoint lacks. Or the layer's names are those of a framework whose batch"
                " normalization always has both (BN201 only)."
            ),
            unproved=(
                "A layer by a name that anybody may use (such as batch_norm) need not have had"
                " statistics. One statistic without the other may as well be stored under a name"
                " that is not known: without a graph the cause of BN202 is null."
            ),
            why=(
                "The statistics of this training are lost. A model restored from the checkpoint"
                " fails, or runs with the initial ones."
            ),
            arithmetic=f"""\
{_INFERENCE}

Activations of mean 5 and deviation 3, epsilon 0.001, gamma 1, beta 0:
as it was trained, x = 8     (8 - 5) / sqrt(9 + 0.001) = 1.000
as it is restored, x = 8     (8 - 0) / sqrt(1 + 0.001) = 7.996""",
            mistakes=(
                "tf.train.Saver(tf.trainable_variables()): the statistics are not trainable",
                "a var_list filtered by a scope, a name or a collection that does not hold them",
                "weights taken over one by one, by a list of the trainable ones",
            ),
            fixes=SAVER_FIXES,
        ),
    ),
    Cause(
        name="untrained",
        summary="the model was saved before its first training step",
        rules=("BN105",),
        doc=CauseDoc(
            meaning="Nothing was trained yet, so there is nothing that could have been updated.",
            proof=(
                "The stored step is 0, and no layer of the checkpoint shows training: statistics,"
                " gamma, beta and optimizer slots are all what they start from."
            ),
            unproved=(
                "Without a stored step an untrained model cannot be told from one whose layer was"
                " left out, or whose batch normalization was folded away."
            ),
            why=(
                "A new model is no defect, hence a note. One that was meant to be trained predicts"
                " with random weights."
            ),
            arithmetic=f"""\
{_INFERENCE}
a new layer, x = 8    1 * (8 - 0) / sqrt(1 + 0.001) + 0 = 7.996""",
            mistakes=(
                "the initial checkpoint of a run, taken for the last",
                "the model saved before fit, or another instance of it trained",
            ),
            fixes=(Fix("Keras", "Save after training, the model that was trained.", KERAS_FIT),),
        ),
    ),
    Cause(
        name="batch-statistics-mode",
        summary="the layer's mode never uses nor updates its averages (Keras 1)",
        rules=("BN101", "BN107"),
        doc=CauseDoc(
            meaning=(
                "Keras 1's BatchNormalization has modes. mode=1 normalises each sample by itself,"
                " mode=2 each batch by its own statistics, at inference too. The averages are"
                " stored and do nothing."
            ),
            proof="The stored configuration of the layer says mode=1 or mode=2.",
            unproved=(
                "Files of weights alone have no configuration. Other frameworks have no such mode:"
                " a layer that is called with training=True at inference is not seen in a file."
            ),
            why=(
                "No defect of the training, hence a note. But with mode=2 a prediction depends on"
                " what else is in the batch, and a batch of one sample is normalised to nothing."
            ),
            arithmetic="""\
mode=2      gamma * (x - batch_mean) / sqrt(batch_variance + epsilon) + beta

A dense layer, x = 8, gamma 1, beta 0, epsilon 0.001:
in a batch of mean 5, deviation 3    (8 - 5) / sqrt(9 + 0.001) = 1.000
alone in its batch                   (8 - 8) / sqrt(0 + 0.001) = 0.000""",
            mistakes=(
                "mode=2 chosen for a layer that several inputs share, as Keras 1 demanded",
                "predictions in small batches, or sample by sample",
            ),
            fixes=(
                Fix(
                    "Keras 1",
                    "Predict in batches as large as in training; or build the layer with mode=0 and"
                    " train it again.",
                ),
            ),
        ),
    ),
    Cause(
        name="half-precision",
        summary="an update is smaller than the number type can hold",
        rules=("BN103",),
        doc=CauseDoc(
            meaning=(
                "The updates ran, but moving_variance is kept in float16 or bfloat16, where a step"
                " from 1 by (1 - momentum) of the difference is rounded back to 1."
            ),
            proof=(
                "The stored type, and a momentum (of the configuration, --momentum or the graph)"
                " with 1 - momentum below half a step of the type just under 1: 0.00195 for"
                " bfloat16, 0.000244 for float16. No graph that says that training does not update"
                " the variance."
            ),
            unproved=(
                "Without a momentum, or with one that the type can follow, the type alone proves"
                " nothing: then BN305 says that it is a risk."
            ),
            why=(
                "A variance of 0 to 2 never leaves 1. The mean starts at 0, where these types are"
                " finer, so it moves at first, and stops where an update is too small for it."
            ),
            arithmetic="""\
update      moving_variance = m * moving_variance + (1 - m) * batch_variance

From 1, with m 0.999 and a batch variance of 0.25, in bfloat16:
one update                        0.999 * 1 + (1 - 0.999) * 0.25 = 0.99925
the next number below 1           1 - 2 ** -8 = 0.99609
half way there, still rounds up   1 - 2 ** -9 = 0.99805""",
            mistakes=(
                "a policy of float16 or bfloat16 (Keras 3) where a mixed one is wanted",
                "hand-written averages created in the type of the activations",
                "a model cast to half precision and then trained on",
            ),
            fixes=FLOAT32_FIXES,
        ),
    ),
)
