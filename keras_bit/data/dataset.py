"""Makes the batches that `model.fit` takes from images on a disk."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from keras_bit.counts import check_whole, is_whole
from keras_bit.data.label_table import TableOptions
from keras_bit.data.options import UNLABELED, Options
from keras_bit.images.processor import BitImageProcessor
from keras_bit.packages import has_tensorflow
from keras_bit.recipes.hyperrule import HyperRule
from keras_bit.recipes.recipe import Recipe

if TYPE_CHECKING:
    import tensorflow as tf

ON_ERROR = ("raise", "skip")
ENGINES = ("auto", "host", "graph")
LARGEST = 2**63 - 1  # whole number in a graph
LABEL_MODES = (None, "int", "categorical", "numbers", UNLABELED)


def image_dataset(
    source: Any,
    *,
    processor: BitImageProcessor,
    batch_size: int,
    training: bool = False,
    rule: HyperRule | None = None,
    recipe: Recipe | None = None,
    seed: int | None = None,
    on_error: str = "raise",
    engine: str = "auto",
    class_names: Sequence[str] | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    split: str | None = None,
    random_resized_crop: bool = False,
    max_pixels: int | None = None,
    shuffle_buffer: int = 4096,
    drop_remainder: bool = False,
    num_parallel_calls: int | None = None,
    label_mode: str | None = None,
    repeat: bool = False,
    initial_step: int = 0,
    shard: tuple[int, int] = (0, 1),
    validation_split: float | None = None,
    subset: str | None = None,
    table: TableOptions | None = None,
) -> "tf.data.Dataset":
    """Returns a `tf.data.Dataset` of `(images, labels)`, one epoch long, for `model.fit` under every backend.

    For evaluation every image has the values of `processor(path)`, in the source's order. For training
    (`training=True`) BiT's recipe is applied. The order and the random numbers are new in every epoch, and the same for
    the same `seed`:

    1. resize to `rule.resize_size` high and wide, whatever the aspect ratio, as Pillow does with the processor's filter
       (bilinear in BiT's own), so that training images look like evaluation images;
    2. crop of `rule.crop_size` at a random place;
    3. horizontal flip of half of the images;
    4. Keras' augmentation layers, if the recipe has some;
    5. the processor's rescaling and normalization;
    6. MixUp, if `rule.mixup_alpha` is above 0: `w * x + (1 - w) * x[order]` of the images and the one-hot labels of a
       batch, with one `w` per batch from the beta distribution (alpha, alpha).

    Args:
        source: the images and their labels. It is one of

            * a directory with a folder per class. The classes are the sorted names of the folders that hold images, at
              any depth. A warning counts files that are not images and everything else that is left out;
            * a pair `(images, labels)`. The images are a list of paths, a list of uint8 arrays `(height, width,
              channels)`, or one array `(count, height, width, channels)`. The labels are whole numbers or names, one
              per image; for images of several classes, lists of names or rows of a number in [0, 1] per class; or
              floats to predict, `(count,)`, or `(count, outputs)` with values outside of [0, 1] in more than a quarter
              of the rows;
            * a CSV file with a column of paths, relative to it, and columns of labels: class names, several names with
              `;` or `|` between them, 0 and 1 for each class, or numbers to predict. A column `split` divides the
              images. The page "Several labels per image, or numbers" of the documentation describes it;
            * a `tf.data.Dataset` of `(image, label)` or of dictionaries with two such columns, not batched. Images are
              encoded bytes or uint8 pixels; labels are whole numbers, floats or rows;
            * TFRecord files of `tf.Example`: a path, a pattern or a list of them, ending in `.tfrecord`, `.tfrecords`,
              `.tfrec` or `-00000-of-00001`. They may be compressed by gzip or zlib. Labels count from 0;
            * a Hugging Face `datasets.Dataset` or `DatasetDict` with a column of images, bytes or paths;
            * a prepared TensorFlow Datasets builder.
        processor: a `BitImageProcessor` with `do_convert_rgb=True`.
        batch_size: images per batch, at least 1. The last batch may have fewer.
        training: whether to shuffle and augment. `True` needs a `rule` or a `recipe`. Default `False`, for evaluation.
        rule: a `HyperRule`. Only training uses it. Evaluation makes images of the processor's size, which in BiT's
            recipe is `size={"height": crop_size, "width": crop_size}, do_center_crop=False`. Default `None`.
        recipe: a `Recipe`, instead of `rule`. Training applies its `augment` and `sampling` too: both need an engine
            other than `"graph"`, and `sampling` needs a source that is not a stream or records. Evaluation makes images
            of its `crop_size`. `fine_tune` compares the recipe with its own. Default `None`.
        seed: the seed of the order and the augmentation, a whole number. They depend on nothing else, not even on
            `tf.random.set_seed`. `None`, the default, draws a new seed every time.
        on_error: what happens to an image that cannot be read or whose label is invalid. `"raise"`, the default, raises
            for the first one. `"skip"` leaves such images out, lists them in the data set's attribute `skipped`, and
            warns at the end of each epoch; if none is left, it raises. Errors that are not the image's fault, such as a
            lack of memory, are raised in both cases. With `"skip"` the number of batches is unknown in advance, so
            Keras warns that the input "ran out of data" and reports one step too many.
        engine: what reads the images; the values are the same. `"host"` is Pillow in a pool of threads, and reads every
            kind of file that Pillow does. `"graph"` is TensorFlow's operations only, for tf.data service, saved graphs
            and iterator checkpoints. It reads the kinds that `tf_preprocess` reads, needs `on_error="raise"`, and names
            a broken file only if its header is broken. `"auto"`, the default, is `"host"`, unless `max_pixels` is above
            Pillow's limit.
        class_names: the classes, in their order. For a directory it may name some of the folders; the others are left
            out. It must hold all labels that are names, and it names labels that are whole numbers. `None`, the
            default, takes the source's own.
        image_column: the source's column of images. Default `"image"`; `"image/encoded"` in TFRecords; for a CSV file
            that of `TableOptions`.
        label_column: the source's column of labels. Default `"label"`; `"image/class/label"` in TFRecords; for a CSV
            file that of `TableOptions`.
        split: the split to read. A `DatasetDict` and a TensorFlow Datasets builder need it. For a CSV file with a
            column `split` it is `"train"`, `"validation"` or `"test"`. Default `None`.
        random_resized_crop: whether training replaces steps 1 and 2 by the Inception networks' crop: a random part of
            5 % to all of the area, 3/4 to 4/3 times as wide as high, is resized to `rule.crop_size`. Training only.
            Default `False`.
        max_pixels: the most pixels of an encoded image. `None`, the default, is Pillow's limit,
            `2 * PIL.Image.MAX_IMAGE_PIXELS`, which is 178,956,970.
        shuffle_buffer: elements in the shuffle buffer, at least 1. It is for training from a `source` that must be read
            from its beginning: a `tf.data.Dataset`, TFRecords, TensorFlow Datasets. They are held in memory, encoded if
            the source is. Other sources are shuffled as a whole by their numbers. Default 4096.
        drop_remainder: whether to drop a last batch that is not full. Default `False`.
        num_parallel_calls: images that are read at the same time. It does not change values. `None`, the default, is
            one per processor; with `engine="graph"` TensorFlow chooses the number.
        label_mode: the form of the labels:

            * `None`, the default: rows after MixUp, and otherwise the form that the source has;
            * `"int"`: whole numbers;
            * `"categorical"`: one-hot rows. Evaluate a model that is trained with MixUp on these;
            * `"numbers"`: the labels of a pair are numbers to predict, even whole ones and rows in [0, 1];
            * `"unlabeled"`: batches of images without labels, for `fine_tune(teacher=...)` and `predict`. `source` is
              then a directory of images at any depth; a list of paths, in which directories stand for the images in
              them; or uint8 arrays.
        repeat: whether training is endless. Every batch is then full, and batches cross the ends of epochs, as in
            Google's code. The images of a step depend only on the seed and the step's number. `True` needs
            `on_error="raise"`. Default `False`.
        initial_step: the number of the first batch, to continue an interrupted run. Only with `repeat`. Default 0.
        shard: `(index, count)`: this process is number `index`, from 0, of `count` processes, and gets
            `batch_size / count` images of every batch. MixUp mixes within this part, with its own weight. Only with
            `repeat`. Default `(0, 1)`.
        validation_split: the share of each class for validation, between 0 and 1, for a directory that is not divided.
            The division is that of `keras-bit finetune`. `None`, the default, does not divide.
        subset: the part of the division to read, `"training"` or `"validation"`. With the same `seed` they are disjoint
            and complete. `validation_split` needs it, and a `seed` of at least 0. Default `None`.
        table: a `keras_bit.TableOptions`: how to read a CSV file, if the names of its columns do not say what they
            hold. Default `None`.

    Returns:
        A `tf.data.Dataset` of float32 images `(batch, height, width, 3)` and labels: int32 `(batch,)`, or float32
        `(batch, classes)` for rows and after MixUp, or the floats to predict. With `label_mode="unlabeled"` it has only
        the images.

        Its attribute `class_names` is a list of strings: `"0"`, `"1"`, ... for numbers without names. It is `None` for
        floats, without labels, and for sources whose classes are not known. Other attributes are `class_counts` (images
        of each class, if known), `number_units` (mean and standard deviation of each number to predict, if known),
        `processor` (of evaluation images), `image_size`, `batch_size` and `recipe`. Methods such as `take` return data
        sets without the attributes, and keep the length.

        Without TensorFlow, it is a `keras.utils.PyDataset` of numpy arrays with the same attributes, but without
        `take`, `map` and the like. Its random numbers are numpy's, so a seed gives other crops. With `on_error="skip"`
        every image is read once beforehand, so the number of batches is known.

    Raises:
        ValueError: an argument, or a label or shape in `source`, is not as described above, or `source` is empty.
        FileNotFoundError: `source` does not exist.
        tf.errors.InvalidArgumentError: during iteration: an image cannot be read, memory ran out, or `source` turns out
            to be empty. Without TensorFlow it is a ValueError for an image, and an OSError for other reasons.

    Directories, paths, arrays and TFRecords can be read by the workers of `tf.data` service too, with
    `engine="graph"`; there a seed does not fix the order.

    Checked against Pillow, numpy and google-research/big_transfer `bit_pytorch/train.py`, and for the order of a
    directory against Keras' `image_dataset_from_directory`.
    """
    if recipe is None and rule is not None:
        _check_rule(rule)
        recipe = Recipe(rule)
    elif recipe is not None:
        _check_recipe(rule, recipe)
        processor = _of_recipe(processor, recipe) if isinstance(processor, BitImageProcessor) else processor
    _check(processor, training, recipe, on_error)
    augment = tuple(recipe.augment or ()) if training and recipe is not None else ()
    if random_resized_crop and not training:
        raise ValueError(
            "`random_resized_crop` is for training, got True with training=False. Leave it out: evaluation uses the "
            "processor's steps."
        )
    for name, value in (("batch_size", batch_size), ("shuffle_buffer", shuffle_buffer)):
        _check_count(name, value)
    for name, number in (("max_pixels", max_pixels), ("num_parallel_calls", num_parallel_calls)):
        if number is not None:
            _check_count(name, number)
    _check_repeat(repeat, training, on_error, initial_step, shard, batch_size)
    _check_labels_and_seed(label_mode, seed)
    if label_mode == UNLABELED:
        from keras_bit.data import unlabeled

        source = unlabeled.source_of(source, class_names, None if recipe is None or not training else recipe.sampling)
    if label_mode == "numbers":
        from keras_bit.data import sources

        source, label_mode = sources.of_numbers(source, class_names, on_error == "raise"), None
    options = Options(
        processor=processor,
        batch_size=int(batch_size),
        rule=recipe.rule if training and recipe is not None else None,
        seed=None if seed is None else int(seed),
        skip=on_error == "skip",
        random_resized_crop=random_resized_crop,
        max_pixels=max_pixels,
        drop_remainder=drop_remainder,
        num_parallel_calls=num_parallel_calls,
        repeat=repeat,
        initial_step=int(initial_step),
        shard=shard,
        label_mode=label_mode,
        engine=_engine(engine, on_error, max_pixels),
        augment=augment,
        sampling=recipe.sampling if training and recipe is not None else None,
    )
    _check_augmentation(options)

    # Imported here, so that `import keras_bit` works without TensorFlow under the other backends.
    from keras_bit.data import sources, splits

    opening: dict[str, Any] = {
        "class_names": class_names,
        "image_column": image_column,
        "label_column": label_column,
        "split": split,
        "check_labels": on_error == "raise",
        "subset": splits.checked_subset(validation_split, subset, seed),
        "table": table,
    }
    if not has_tensorflow():
        sources.refuse_without_tensorflow(source, options.engine)
        items = sources.open_items(source, **opening)
        _check_images(items, options, training)
        return _remembering(_without_tensorflow(items, options), items.size, options, recipe)
    from keras_bit.data import pipeline

    opened = sources.open_source(source, **opening, shuffle_buffer=shuffle_buffer)
    _check_images(opened, options, training)
    return _remembering(pipeline.build(opened, options), opened.size, options, recipe)


def _remembering(data: Any, known: tuple[int, int] | None, options: Options, recipe: Recipe | None) -> Any:
    """Attaches the arguments that a data set was made with."""
    data.recipe, data.processor, data.image_size = recipe, options.processor, options.size(known)
    data.batch_size = options.batch_size
    return data


def _of_recipe(processor: BitImageProcessor, recipe: Recipe) -> BitImageProcessor:
    """Returns a processor whose images have the size of the recipe's crops."""
    size = {"height": recipe.rule.crop_size, "width": recipe.rule.crop_size}
    return dataclasses.replace(processor, do_resize=True, size=size, do_center_crop=False)


def _check_augmentation(options: Options) -> None:
    """Refuses Keras' layers if they cannot run."""
    for name in ("augment", "sampling"):
        value = getattr(options, name)
        if value and options.engine == "graph":
            raise ValueError(
                f"`engine` must be 'host' for a recipe with `{name}`, {value!r}, which runs in Python, got 'graph'."
            )
    if options.augment:
        from keras_bit.data.keras_augmentation import check_layers

        check_layers(options.augment)


def _without_tensorflow(items: Any, options: Options) -> Any:
    from keras_bit.data.py_dataset import Batches

    options.check_labels(items.labels.class_names, numbers=items.labels.class_names is None)
    return Batches(items, options)


def _check_images(opened: Any, options: Options, training: bool) -> None:
    """Refuses arguments that do not fit the images of an opened source."""
    if options.max_pixels is not None and not opened.encoded:
        raise ValueError(
            f"`max_pixels` is for encoded images, got {options.max_pixels:,} for a `source` of pixels. Leave it out."
        )
    if not training and opened.size is None:
        _check_one_size(options.processor, options.batch_size)


def _engine(engine: str, on_error: str, max_pixels: int | None) -> str:
    """Chooses what reads the images."""
    if engine not in ENGINES:
        raise ValueError(f"`engine` must be one of {', '.join(map(repr, ENGINES))}, got {engine!r}.")
    limit = None if Image.MAX_IMAGE_PIXELS is None else 2 * Image.MAX_IMAGE_PIXELS
    beyond = max_pixels is not None and limit is not None and max_pixels > limit
    if engine == "graph" and on_error == "skip":
        raise ValueError(
            "`engine` must be 'host' or 'auto' with on_error='skip', got 'graph', which cannot leave images out. Leave "
            "`engine` out."
        )
    if beyond and (engine == "host" or on_error == "skip" or not has_tensorflow()):
        raise ValueError(
            f"`max_pixels` must be at most {limit:,}, got {max_pixels:,}: Pillow refuses more. Raise "
            "PIL.Image.MAX_IMAGE_PIXELS, half of the limit, or pass engine='graph'."
        )
    return "graph" if engine == "graph" or beyond else "host"


def _check_repeat(
    repeat: bool, training: bool, on_error: str, initial_step: int, shard: tuple[int, int], batch_size: int
) -> None:
    if repeat and not (training and on_error == "raise"):
        raise ValueError(
            "`repeat` must be False for evaluation and with on_error='skip', because the place of an image is not "
            f"known in advance, got True with training={training} and on_error={on_error!r}. Leave `repeat` out."
        )
    check_whole("initial_step", initial_step, least=0)
    whole = isinstance(shard, tuple | list) and len(shard) == 2 and all(type(part) is int for part in shard)
    if not whole or not 0 <= shard[0] < shard[1]:
        raise ValueError(
            f"`shard` must be (index, count) with 0 <= index < count, got {shard!r}. Pass (0, 1) for a single process."
        )
    if not repeat and (initial_step or tuple(shard) != (0, 1)):
        raise ValueError(
            f"`initial_step` and `shard` are for repeat=True, got initial_step={initial_step}, shard={shard}. Pass "
            "repeat=True, or leave them out."
        )
    if batch_size % shard[1]:
        raise ValueError(
            f"`batch_size` must be a multiple of the {shard[1]} parts of `shard`, got {batch_size}. Pass the batch "
            "size of all parts together."
        )


def _check_rule(rule: HyperRule) -> None:
    if not isinstance(rule, HyperRule):
        raise ValueError(f"`rule` must be a keras_bit.HyperRule, got {type(rule).__name__}.")


def _check_recipe(rule: HyperRule | None, recipe: Recipe) -> None:
    if not isinstance(recipe, Recipe):
        raise ValueError(f"`recipe` must be a keras_bit.Recipe, got {type(recipe).__name__}.")
    if rule is not None:
        raise ValueError(
            "`image_dataset` takes one of `rule` and `recipe`, got both. A Recipe contains its rule: leave `rule` out."
        )


def _check(processor: BitImageProcessor, training: bool, recipe: Recipe | None, on_error: str) -> None:
    if not isinstance(processor, BitImageProcessor):
        raise ValueError(f"`processor` must be a BitImageProcessor, got {type(processor).__name__}.")
    if not processor.do_convert_rgb:
        raise ValueError("`processor` must have do_convert_rgb=True: the images are RGB. Got do_convert_rgb=False.")
    if training and recipe is None:
        raise ValueError(
            "`rule` must say how training images are resized and cropped, got None with training=True. Pass "
            "keras_bit.HyperRule(num_examples, image_size), with the number of images and their typical size."
        )
    if on_error not in ON_ERROR:
        raise ValueError(f"`on_error` must be one of {', '.join(map(repr, ON_ERROR))}, got {on_error!r}.")


def _check_labels_and_seed(label_mode: str | None, seed: int | None) -> None:
    if label_mode not in LABEL_MODES:
        raise ValueError(f"`label_mode` must be one of {', '.join(map(repr, LABEL_MODES))}, got {label_mode!r}.")
    if seed is not None and not is_whole(seed):
        raise ValueError(f"`seed` must be a whole number or None, got {seed!r}.")
    if seed is not None and abs(seed) > LARGEST:
        raise ValueError(f"`seed` must be between -2**63 and 2**63, got {seed}.")


def _check_count(name: str, value: int) -> None:
    check_whole(name, value)
    if value > LARGEST:
        raise ValueError(f"`{name}` must be below 2**63, got {value}.")


def _check_one_size(processor: BitImageProcessor, batch_size: int) -> None:
    if batch_size > 1 and processor.fixed_size is None:
        raise ValueError(
            "`processor` must make images of one size, so that they form a batch. Turn on `do_center_crop`, or give "
            f"`size` a height and a width, or use batch_size=1. Got do_resize={processor.do_resize}, "
            f"size={processor.size}, do_center_crop={processor.do_center_crop}."
        )
