"""Opens the page that `export` writes in a headless Chromium; compares it with Keras and the processor."""

import base64
import json
import os
import shutil
import ssl
import subprocess
import time

import numpy as np
import pytest
from PIL import Image

import keras_bit
from browser import chromium, needs_browser, npm_package, requested, serving
from conftest import DATA, absent
from image_files import encoded, pixels
from keras_bit import BitImageProcessor
from keras_bit.evaluation.activation_map import activation_maps
from keras_bit.exporters.web import runtime
from store import TRAINED
from tagged_files import block, jpeg, png, stored, webp

pytestmark = pytest.mark.slow
PATIENCE = 60  # seconds
TOLERANCE = 1e-4  # of the largest value
PROCESSOR = BitImageProcessor.from_pretrained(TRAINED)
READY = "The model is ready. Choose an image."

# Gives the page's own modules a file of the server, as the page gives them one that was chosen.
CLASSIFY = """
const [name, done] = arguments;
(async () => {
  window.classifier ??= (async () => {
    const [{ Classifier }, { json }] = await Promise.all([import("/classifier.js"), import("/files.js")]);
    return new Classifier(await json("settings.json"), () => {});
  })();
  const blob = await (await fetch(name)).blob();
  const { scores, classes, maps, milliseconds } = await (await window.classifier).classify(blob);
  return { scores: Array.from(scores), classes, maps: Array.from(maps.data), milliseconds };
})().then(done, (error) => done(String(error)));
"""
PREPROCESS = """
const [name, done] = arguments;
(async () => {
  const load = (module) => import(`/${module}.js`);
  const [{ decode }, { preprocess }, { json }] = await Promise.all(["decode", "preprocess", "files"].map(load));
  const { processor } = await json("settings.json");
  const image = await decode(await (await fetch(name)).blob(), processor.orientation);
  const bytes = new Uint8Array(preprocess(image.pixels, image, processor).buffer);
  let text = "";
  for (let place = 0; place < bytes.length; place += 2 ** 14) {
    text += String.fromCharCode(...bytes.subarray(place, place + 2 ** 14));
  }
  return btoa(text);
})().then(done, (error) => done(String(error)));
"""


def exported(finished, quantize=None):
    """Exports a page for the small trained checkpoint, with its own runtime."""
    package = npm_package()

    def make(folder):
        model = keras_bit.from_pretrained(TRAINED)
        keras_bit.export(model, folder / "site", "web", processor=PROCESSOR, quantize=quantize, runtime=package)
        return folder / "site"

    return finished(f"a page, {quantize}", make)


@pytest.fixture(scope="module")
def site(finished, tmp_path_factory):
    """Returns the page, with the images of these tests below it."""
    needs_browser()
    folder = tmp_path_factory.mktemp("web") / "site"
    shutil.copytree(exported(finished), folder)
    (folder / "images").mkdir()
    if (DATA / "photos").is_dir():
        for file in (DATA / "photos").iterdir():
            shutil.copyfile(file, folder / "images" / f"{file.stem}.jpg")
    else:
        for seed in range(12):
            contents = encoded(pixels(seed, 90 + 7 * seed, 160 - 5 * seed), "JPEG", quality=90)
            (folder / "images" / f"{seed}.jpg").write_bytes(contents)
    for file in list((folder / "images").glob("*.jpg")):
        Image.open(file).convert("RGB").save(file.with_suffix(".png"), compress_level=1)
    return folder


@pytest.fixture(scope="module")
def server(site):
    with serving(site) as server:
        yield server


@pytest.fixture(scope="module")
def driver(server, tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
def page(driver, server):
    return opened(driver, server.address)


def opened(driver, address):
    driver.get(address)
    wait(driver, lambda: text(driver, "status") == READY or text(driver, "trouble"))
    return driver


def text(driver, name):
    return driver.execute_script("return document.getElementById(arguments[0]).textContent", name)


def wait(driver, until):
    ends = time.monotonic() + PATIENCE
    while not until():
        assert time.monotonic() < ends, (text(driver, "status"), text(driver, "trouble"), driver.get_log("browser"))
        time.sleep(0.02)


def choose(page, path):
    """Chooses a file; the sentence that the page then says, and whether it is about a trouble."""
    before = text(page, "status")
    page.find_element("id", "file").send_keys(str(path))
    wait(page, lambda: text(page, "trouble") or text(page, "status") not in ("", before, f"Looking at {path.name}."))
    return text(page, "status"), text(page, "trouble")


def asked(page, script, name):
    found = page.execute_async_script(script, name)
    assert not (isinstance(found, str) and found.startswith(("Error", "TypeError", "Trouble"))), (name, found)
    return found


def preprocessed(page, name):
    return np.frombuffer(base64.b64decode(asked(page, PREPROCESS, name)), np.float32)


def test_images_have_kerass_classes_and_maps_and_the_processors_pixels(page, site):
    model = keras_bit.from_pretrained(TRAINED)
    black_and_one = np.array([[[0] * 3, [1] * 3]], np.uint8)
    plain = {"do_resize": False, "do_center_crop": False, "input_data_format": "channels_last"}
    level = np.diff(PROCESSOR(black_and_one, **plain)[0, 0], axis=0)  # of each channel
    off, share, scores_off, maps_off, milliseconds = {".png": [], ".jpg": []}, [], [], [], []
    for path in sorted((site / "images").iterdir()):
        name = f"images/{path.name}"
        expected = PROCESSOR([path])
        difference = np.abs(preprocessed(page, name).reshape(-1, 3) - expected.reshape(-1, 3)) / level
        off[path.suffix].append(difference.max())
        share.append((difference > 0.5).mean())
        found = asked(page, CLASSIFY, name)
        scores = np.asarray(model(expected))[0]
        assert found["classes"][0] == scores.argmax(), path
        scores_off.append(np.abs(found["scores"] - scores).max())
        maps = activation_maps(model, expected, found["classes"]).maps[0].transpose(2, 0, 1)
        maps_off.append(np.abs(np.reshape(found["maps"], maps.shape) - maps).max() / np.abs(maps).max())
        milliseconds.append(found["milliseconds"])
    means = {name: round(float(np.mean([one[name] for one in milliseconds])), 1) for name in milliseconds[0]}
    print(
        f"\n{len(share)} images: pixels off by {max(off['.png']):.2g} (PNG) and {max(off['.jpg']):.2g} (JPEG) gray "
        f"levels, {np.mean(share):.2%} of them; scores by {max(scores_off):.1e}, maps by {max(maps_off):.1e} of the "
        f"largest; {means} ms"
    )
    assert max(off[".png"]) == 0
    assert max(off[".jpg"]) <= 1
    assert max(scores_off) < (TOLERANCE if max(off[".jpg"]) == 0 else 1e-2)
    assert max(maps_off) < (TOLERANCE if max(off[".jpg"]) == 0 else 1e-2)


CHANNELS = np.random.default_rng(0).integers(0, 256, (64, 64, 4), dtype=np.uint8)
CHANNELS[:20, :, 3] = 0
KINDS = {
    "alpha.png": encoded(CHANNELS, "PNG"),
    "alpha.webp": encoded(CHANNELS, "WEBP", lossless=True, exact=True),
    "gray with alpha.png": encoded(Image.fromarray(CHANNELS[..., 2:], "LA"), "PNG"),
    "gray.png": encoded(CHANNELS[..., 0], "PNG"),
    "gray.jpg": encoded(pixels(1, 64, 64)[..., 0], "JPEG"),
    "palette.png": encoded(Image.fromarray(CHANNELS[..., :3]).convert("P"), "PNG"),
    "palette.gif": encoded(Image.fromarray(CHANNELS[..., :3]).convert("P"), "GIF"),
    "colors.bmp": encoded(CHANNELS[..., :3], "BMP"),
    "lossless.webp": encoded(CHANNELS[..., :3], "WEBP", lossless=True),
    "gamma.png": encoded(CHANNELS[..., :3], "PNG")[:33]
    + b"\0\0\0\4gAMA\0\1\x86\xa0\x31\xe8\x96\x5f"
    + encoded(CHANNELS[..., :3], "PNG")[33:],
}


@pytest.mark.parametrize("name", KINDS)
def test_other_kinds_of_images_have_the_processors_pixels(page, site, name):
    """Alpha is dropped and colors are taken as they are stored, whatever a profile or a gamma says."""
    (site / name).write_bytes(KINDS[name])
    np.testing.assert_array_equal(preprocessed(page, name), PROCESSOR(KINDS[name]).reshape(-1))


@pytest.mark.parametrize("orientation", ["upright", "ignore"])
@pytest.mark.parametrize("tag", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_orientation_tags_are_followed_or_ignored_as_the_processor_says(page, site, kind, tag, orientation):
    image = stored(Image.fromarray(pixels(5, 70, 110)), tag)
    writers = {"jpg": jpeg, "png": png, "webp": webp}
    options = {"lossless": True} if kind == "webp" else {}
    contents = writers[kind](block(tag), image=image, **options)
    (site / f"tagged.{kind}").write_bytes(contents)
    settings = site / "settings.json"
    original = settings.read_text()
    settings.write_text(original.replace('"orientation": "upright"', f'"orientation": "{orientation}"'))
    try:
        found = preprocessed(page, f"tagged.{kind}")
    finally:
        settings.write_text(original)
    np.testing.assert_array_equal(found, PROCESSOR(contents, orientation=orientation).reshape(-1))


def first(site):
    return sorted((site / "images").iterdir())[0]


def answer(path):
    """Returns what the page must say about an image. It is the oracle for its sentence."""
    labels = [label for _, label in sorted(keras_bit.BitConfig.from_pretrained(TRAINED).id2label.items())]
    scores = np.asarray(keras_bit.from_pretrained(TRAINED)(PROCESSOR([path])))[0]
    best = np.argsort(-scores)[:5]
    return f"{path.name}: {labels[best[0]]} {100 * scores[best[0]]:.1f}%. Then {labels[best[1]]} ", best, labels, scores


def test_a_chosen_picture_is_answered_in_words_bars_and_a_map(page, site):
    path = first(site)
    sentence, best, labels, scores = answer(path)
    said, trouble = choose(page, path)
    assert said.startswith(sentence)
    assert trouble == ""
    rows = page.find_elements("css selector", ".class")
    assert [row.find_element("css selector", ".name").text for row in rows] == [labels[number] for number in best]
    shares = [float(row.find_element("css selector", ".share").text.rstrip("%")) for row in rows]
    np.testing.assert_allclose(shares, 100 * scores[best], atol=0.06)
    widths = [row.find_element("css selector", ".bar").value_of_css_property("width") for row in rows]
    assert [float(width.removesuffix("px")) for width in widths] == sorted(
        (float(width.removesuffix("px")) for width in widths), reverse=True
    )
    canvas = page.find_element("id", "picture")
    assert canvas.get_attribute("aria-label") == f"{path.name}, with the places of {labels[best[0]]} in color"
    with_map = page.execute_script("return arguments[0].toDataURL()", canvas)
    page.find_element("id", "show-map").click()
    without = page.execute_script("return arguments[0].toDataURL()", canvas)
    assert with_map != without
    assert canvas.get_attribute("aria-label") == path.name
    page.find_element("id", "show-map").click()
    page.find_elements("css selector", ".class input")[1].click()
    assert page.execute_script("return arguments[0].toDataURL()", canvas) not in (with_map, without)
    assert text(page, "caption").startswith(f"In color: {labels[best[1]]}. ")


# What a browser does with a file that a person drops or pastes.
HAND_OVER = """
const [name, kind, done] = arguments;
(async () => {
  const data = new DataTransfer();
  if (name) data.items.add(new File([await (await fetch(`images/${name}`)).blob()], name, { type: "image/png" }));
  else data.setData("text/plain", "no picture");
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true })
    : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
  document.body.dispatchEvent(event);
})().then(done, (error) => done(String(error)));
"""


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_dropped_and_a_pasted_picture_are_answered(page, site, kind):
    path = first(site)
    page.execute_async_script(HAND_OVER, path.name, kind)
    wait(page, lambda: text(page, "status") not in ("", READY, f"Looking at {path.name}."))
    assert text(page, "status").startswith(answer(path)[0])
    page.execute_async_script(HAND_OVER, "", kind)
    wait(page, lambda: text(page, "trouble"))


def test_every_control_works_by_keyboard_and_has_a_name(page, site):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    page.execute_script(
        "window.asked = 0; document.getElementById('file').addEventListener('click', (event) => {"
        " event.preventDefault(); window.asked += 1; })"
    )

    def press(key):
        ActionChains(page).send_keys(key).perform()
        return page.execute_script("return document.activeElement.id || document.activeElement.name")

    assert press(Keys.TAB) == "drop"
    for count, key in enumerate((Keys.ENTER, Keys.SPACE), start=1):
        press(key)
        assert page.execute_script("return window.asked") == count
    assert page.execute_script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    choose(page, first(site))
    page.find_element("id", "drop").send_keys("")  # focus
    page.execute_script("document.getElementById('drop').focus()")
    assert press(Keys.TAB) == "class"
    press(Keys.ARROW_DOWN)
    assert page.execute_script("return document.activeElement.value") == "1"
    assert press(Keys.TAB) == "show-map"
    press(Keys.SPACE)
    assert page.execute_script("return document.getElementById('show-map').checked") is False

    tree = page.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    kinds = ("button", "radio", "checkbox", "image", "status", "heading")
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node["ignored"]]
    found = [(kind, name) for kind, name in named if kind in kinds]
    assert all(name or kind == "status" for kind, name in found), found
    assert {kind for kind, _ in found} >= {"button", "radio", "checkbox", "image", "status"}
    live = page.find_element("id", "status")
    assert (live.get_attribute("role"), live.get_attribute("aria-live")) == ("status", "polite")
    assert page.find_element("id", "trouble").get_attribute("role") == "alert"


@pytest.mark.parametrize("width", [320, 375, 1280])
def test_it_fits_on_phones_and_offers_the_camera_there(page, site, width):
    phone = width < 500
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 2, "mobile": phone}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": phone})
    try:
        choose(page, first(site))
        assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        assert page.find_element("id", "photograph").is_displayed() == phone
        assert page.find_element("id", "camera").get_attribute("capture") == "environment"
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})


def test_nothing_moves_with_prefers_reduced_motion(page, site):
    choose(page, first(site))
    bar = page.find_element("css selector", ".bar")
    assert bar.value_of_css_property("transition-duration") != "0s"
    still = {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", still)
    assert bar.value_of_css_property("transition-property") == "none"
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def deep_gray():
    image = Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64))
    return encoded(image, "PNG")


UNREADABLE = {
    "empty.jpg": (b"", "is empty"),
    "text.png": (b"this is no image", "cannot read it as an image"),
    "cut.jpg": (encoded(pixels(0), "JPEG")[:700], "cannot read it as an image"),
    "damaged.png": (encoded(pixels(0), "PNG")[:60] + b"junk" * 20, "cannot read it as an image"),
    "deep.png": (deep_gray(), "a gray PNG of 16 bits"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_is_not_an_image_gives_a_sentence_and_the_next_is_answered(page, site, tmp_path, name):
    contents, words = UNREADABLE[name]
    (tmp_path / name).write_bytes(contents)
    said, trouble = choose(page, tmp_path / name)
    assert trouble.startswith(f"{name}: ")
    assert words in trouble
    assert said == ""
    assert not page.find_element("id", "result").is_displayed()
    path = first(site)
    said, trouble = choose(page, path)
    assert said.startswith(f"{path.name}: ")
    assert trouble == ""


ENGINE = runtime.ENGINES["wasm"]


@pytest.mark.parametrize("name", [ENGINE.script.name, ENGINE.binary.name])
def test_a_runtime_with_another_hash_is_not_used(driver, finished, tmp_path, name):
    folder = shutil.copytree(exported(finished), tmp_path / "site")
    content = bytearray((folder / "runtime" / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "runtime" / name).write_bytes(content)
    with serving(folder) as server:
        opened(driver, server.address)
        trouble = text(driver, "trouble")
        assert f"runtime/{name} is not the file that this page was made with" in trouble
        (folder / "runtime" / name).unlink()
        opened(driver, server.address)
        assert f"runtime/{name} could not be loaded: the server answered 404" in text(driver, "trouble")


def test_a_model_that_is_missing_or_cut_off_is_a_sentence(driver, finished, tmp_path):
    folder = shutil.copytree(exported(finished), tmp_path / "site")
    model = folder / "model.onnx"
    content = model.read_bytes()
    with serving(folder) as server:
        for changed, words in ((content[:1000], "is cut off after 1000 of"), (content + b"1", "is larger than it was")):
            model.write_bytes(changed)
            os.utime(model, (len(changed), len(changed)))  # by which the browser sees that it is another one
            opened(driver, server.address)
            assert words in text(driver, "trouble")
        model.unlink()
        opened(driver, server.address)
        assert "could not be loaded: the server answered 404" in text(driver, "trouble")


def test_opened_as_a_file_it_says_what_to_run(driver, finished):
    driver.get((exported(finished) / "index.html").as_uri())
    wait(driver, lambda: text(driver, "trouble"))
    assert "opened as a file" in text(driver, "trouble")
    assert "python -m http.server" in text(driver, "trouble")
    assert not driver.find_element("id", "drop").is_enabled()


@pytest.mark.parametrize("quantize", ["float16", "int8"])
def test_weights_of_fewer_bits_run_in_the_browser(driver, finished, site, quantize):
    folder = exported(finished, quantize)
    with serving(folder) as server:
        opened(driver, server.address)
        said, trouble = choose(driver, first(site))
    assert trouble == ""
    assert f"weights in {quantize}" in text(driver, "about")
    assert said.startswith(answer(first(site))[0].partition(".")[0])


@pytest.mark.filterwarnings("ignore::keras_bit.checkpoints.building.NewHead")
def test_a_model_of_one_class_has_one_bar(driver, site, tmp_path):
    model = keras_bit.from_pretrained(TRAINED, classes=1, classifier_activation="sigmoid")
    model.get_layer("predictions").bias.assign([2.0])  # the new head's kernel is zeros
    options = {"processor": PROCESSOR, "labels": ["a thing"], "runtime": npm_package()}
    keras_bit.export(model, tmp_path / "site", "web", **options)
    with serving(tmp_path / "site") as server:
        opened(driver, server.address)
        said, trouble = choose(driver, first(site))
        assert (said, trouble) == (f"{first(site).name}: a thing 88.1%.", "")
        assert [one.text.split("\n") for one in driver.find_elements("class name", "class")] == [["a thing", "88.1%"]]


def test_several_threads_are_used_where_a_server_allows_it(driver, finished, site):
    isolated = {"Cross_Origin_Opener_Policy": "same-origin", "Cross_Origin_Embedder_Policy": "require-corp"}
    with serving(exported(finished), **isolated) as server:
        opened(driver, server.address)
        assert driver.execute_script("return crossOriginIsolated")
        said, trouble = choose(driver, first(site))
    assert trouble == ""
    assert said.startswith(answer(first(site))[0])


# A graphics processor in software, which Debian's Chromium brings.
SOFTWARE = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")


def test_webgpu_is_used_if_possible_and_webassembly_otherwise(finished, site, tmp_path):
    needs_browser()
    folder = shutil.copytree(exported(finished), tmp_path / "site")
    shutil.copyfile(first(site), folder / "image")
    expected = answer(first(site))[3]
    with chromium(tmp_path, *SOFTWARE) as driver, serving(folder) as server:
        opened(driver, server.address)
        assert "on WebGPU" in text(driver, "about")
        np.testing.assert_allclose(asked(driver, CLASSIFY, "image")["scores"], expected, rtol=0, atol=1e-3)
        (folder / "runtime" / runtime.ENGINES["webgpu"].binary.name).unlink()
        opened(driver, server.address)
        assert "on WebAssembly" in text(driver, "about")
        np.testing.assert_allclose(asked(driver, CLASSIFY, "image")["scores"], expected, rtol=0, atol=TOLERANCE)


def test_nothing_is_asked_of_anyone_else_and_nothing_can_be(finished, site, tmp_path):
    """Adds a line to the page's worker that asks another server. The policy has to prevent it."""
    folder = shutil.copytree(exported(finished), tmp_path / "site")
    with serving(tmp_path) as other, serving(folder) as server:
        worker = folder / "worker.js"
        question = f'fetch("{other.address}?from=worker", {{ mode: "no-cors" }}).catch(() => {{}});\n'
        worker.write_text(worker.read_text() + question)
        with chromium(tmp_path) as driver:
            opened(driver, server.address)
            said, _ = choose(driver, first(site))
            assert said.startswith(answer(first(site))[0])
            refused = "fetch(arguments[0]).then(() => arguments[1]('sent'), () => arguments[1]('refused'))"
            assert driver.execute_async_script(refused, f"{other.address}?from=page") == "refused"
            image = "const one = new Image(); one.onerror = () => arguments[1]('refused'); one.src = arguments[0]"
            assert driver.execute_async_script(image, f"{other.address}image.png") == "refused"
        assert other.asked == []
        written = {f"/{file.relative_to(folder).as_posix()}" for file in folder.rglob("*")}
        assert set(server.asked) <= {"/"} | written  # files, and nothing behind a question mark
    origin = server.address.rstrip("/")
    found = [address for address, initiator in requested(tmp_path) if initiator == origin]
    assert {address for address in found if not address.startswith(("blob:", "data:"))} >= {f"{origin}/model.onnx"}
    assert [
        address for address in found if not address.removeprefix("blob:").startswith(("data:", server.address))
    ] == []


def certificate(folder):
    """Makes a certificate for any name, which the browser is set to accept."""
    if shutil.which("openssl") is None:
        absent("openssl is not installed")
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]
    files = folder / "certificate.pem", folder / "key.pem"
    subprocess.run([*made, "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    return files


def test_without_a_local_runtime_it_is_loaded_from_the_pinned_address(finished, site, tmp_path):
    """Puts a server in the place of jsDelivr, with the npm package at jsDelivr's path."""
    needs_browser()
    folder = tmp_path / "site"
    keras_bit.export(keras_bit.from_pretrained(TRAINED), folder, "web", processor=PROCESSOR)
    address = runtime.ADDRESS.removeprefix("https://cdn.jsdelivr.net/")
    dist = tmp_path / "cdn" / address
    dist.mkdir(parents=True)
    for file in runtime.FILES:
        shutil.copyfile(npm_package() / "dist" / file.name, dist / file.name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(tmp_path))
    with serving(tmp_path / "cdn", Access_Control_Allow_Origin="*") as cdn, serving(folder) as server:
        cdn.socket = context.wrap_socket(cdn.socket, server_side=True)
        pinned = f"MAP cdn.jsdelivr.net:443 127.0.0.1:{cdn.server_port}"
        rules = f"--host-resolver-rules={pinned} , MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"
        with chromium(tmp_path, rules, "--ignore-certificate-errors") as driver:
            opened(driver, server.address)
            said, _ = choose(driver, first(site))
        assert said.startswith(answer(first(site))[0])
        assert sorted(set(cdn.asked)) == sorted(f"/{address}{file.name}" for file in (ENGINE.script, ENGINE.binary))


def test_the_settings_are_json_for_any_reader(site):
    assert json.loads((site / "settings.json").read_text())["model"]["file"] == "model.onnx"
