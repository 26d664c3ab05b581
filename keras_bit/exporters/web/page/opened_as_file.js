// Tells the person why a page that was opened as a file does nothing. Browsers load no module from a file, so this is a
// plain script.
if (location.protocol === "file:") {
  document.getElementById("trouble").textContent =
    "This page was opened as a file, and browsers run it only from a web server. " +
    "Run “python -m http.server” in its folder, and open http://localhost:8000/.";
  for (const button of document.querySelectorAll("button")) button.disabled = true;
}
