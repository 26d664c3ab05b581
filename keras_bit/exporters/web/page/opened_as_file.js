// No module: browsers load none from a file, so this says why the page does nothing.
if (location.protocol === "file:") {
  document.getElementById("trouble").textContent =
    "This page was opened as a file, and browsers run it only from a web server. " +
    "Run “python -m http.server” in its folder, and open http://localhost:8000/.";
  for (const button of document.querySelectorAll("button")) button.disabled = true;
}
