// Photos to the gateway, faces onto the page. Everything is of this origin; nothing is kept but on the page itself.

const AT_ONCE = 2; // photos at the server: one is answered while the next is on its way
const CAMERA_WIDTH = 640;

const get = (id) => document.getElementById(id);
const percent = (share) => `${Math.round(100 * share)} %`;
const waiting = [];
let working = 0;

async function findFaces(blob) {
  let response;
  try {
    response = await fetch("faces", { method: "POST", body: blob, headers: { "Content-Type": "application/octet-stream" } });
  } catch {
    throw new Error("the page's server does not answer; is it still running?");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error ?? `status ${response.status}`);
  return answer;
}

// Photos

function addPhoto(blob, name) {
  const article = get("photo").content.cloneNode(true).firstElementChild;
  const image = article.querySelector("img");
  image.src = URL.createObjectURL(blob);
  image.alt = name;
  image.addEventListener("error", () => {
    article.querySelector(".picture").hidden = true;
    article.dataset.unseen = "yes";
  });
  article.querySelector("h2").textContent = name;
  say(article, "waiting ...");
  get("photos").prepend(article);
  get("clear").hidden = false;
  waiting.push({ blob, article, image });
  work();
}

async function work() {
  while (waiting.length && working < AT_ONCE) {
    const job = waiting.shift();
    working += 1;
    answer(job).finally(() => {
      working -= 1;
      work();
    });
  }
}

async function answer({ blob, article, image }) {
  say(article, "looking for faces ...");
  try {
    const [found] = await Promise.all([findFaces(blob), image.decode().catch(() => undefined)]);
    show(article, found, image.naturalWidth, image.naturalHeight);
    let text = found.faces.length ? count(found.faces.length) : "no face found";
    if (found.in_photo > found.faces.length) text = `${found.in_photo} faces; the ${found.faces.length} largest are shown`;
    if (article.dataset.unseen) text += "; this browser cannot show the picture itself";
    say(article, text);
    get("status").textContent = `${image.alt}: ${text}`;
  } catch (error) {
    say(article, error.message, true);
    get("status").textContent = `${image.alt}: ${error.message}`;
  }
}

const count = (number) => `${number} ${number === 1 ? "face" : "faces"}`;

function say(article, text, bad = false) {
  const message = article.querySelector(".message");
  message.textContent = text;
  message.classList.toggle("bad", bad);
}

// Faces

function show(section, found, width, height) {
  const picture = section.querySelector(".picture");
  picture.querySelectorAll(".box").forEach((box) => box.remove());
  const items = found.faces.map((face, index) => faceItem(face, index + 1));
  section.querySelector(".faces").replaceChildren(...items);
  if (!width) return;
  found.faces.forEach((face, index) => {
    const box = faceBox(face, index + 1, width, height);
    picture.append(box);
    link(box, items[index]);
  });
}

function summary(face) {
  const gender = `${face.gender} ${percent(face.gender_probability)}`;
  return `${Math.round(face.age)} years, ${gender}, ${face.emotion} ${percent(face.emotions[face.emotion])}`;
}

function faceItem(face, number) {
  const item = get("face").content.cloneNode(true).firstElementChild;
  item.querySelector("h3").textContent = `${number}. ${summary(face)}`;
  const list = item.querySelector("dl");
  for (const [emotion, share] of Object.entries(face.emotions)) {
    const name = document.createElement("dt");
    name.textContent = emotion;
    const bar = document.createElement("dd");
    bar.className = "bar";
    const filled = document.createElement("div");
    filled.style.width = `${100 * share}%`;
    bar.append(filled);
    const value = document.createElement("dd");
    value.className = "share";
    value.textContent = percent(share);
    list.append(name, bar, value);
  }
  return item;
}

function faceBox(face, number, width, height) {
  const [left, top, right, bottom] = face.box;
  const box = document.createElement("button");
  box.type = "button";
  box.className = "box";
  box.setAttribute("aria-label", `Face ${number}: ${summary(face)}`);
  box.style.left = `${(100 * left) / width}%`;
  box.style.top = `${(100 * top) / height}%`;
  box.style.width = `${(100 * (right - left)) / width}%`;
  box.style.height = `${(100 * (bottom - top)) / height}%`;
  const label = document.createElement("span");
  label.textContent = number;
  box.append(label);
  return box;
}

function link(box, item) {
  const choose = (chosen) => [box, item].forEach((element) => element.classList.toggle("chosen", chosen));
  for (const element of [box, item]) {
    element.addEventListener("mouseenter", () => choose(true));
    element.addEventListener("mouseleave", () => choose(false));
    element.addEventListener("focus", () => choose(true));
    element.addEventListener("blur", () => choose(false));
  }
  box.addEventListener("click", () => item.focus());
}

// Webcam: one frame after the other, each when the one before was answered

let stream = null;

async function startCamera() {
  if (!navigator.mediaDevices) throw new Error("this browser gives no webcam to a page at this address; use localhost or https");
  stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: CAMERA_WIDTH }, facingMode: "user" } });
  get("video").srcObject = stream;
  await get("video").play();
  get("live").hidden = false;
  get("camera").textContent = "Stop the webcam";
  get("camera").setAttribute("aria-pressed", "true");
  watch(stream);
}

async function watch(own) {
  const video = get("video");
  const canvas = document.createElement("canvas");
  while (stream === own) {
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    const frame = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.9));
    try {
      const found = await findFaces(frame);
      if (stream !== own) return;
      show(get("live"), found, canvas.width, canvas.height);
      get("status").textContent = `webcam: ${found.faces.length ? count(found.faces.length) : "no face found"}`;
    } catch (error) {
      get("status").textContent = `webcam: ${error.message}`;
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
}

function stopCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  get("video").srcObject = null;
  get("live").hidden = true;
  get("camera").textContent = "Use the webcam";
  get("camera").setAttribute("aria-pressed", "false");
  get("status").textContent = "";
}

// What the visitor does

const addFiles = (files) => [...files].forEach((file) => addPhoto(file, file.name || "pasted picture"));

get("files").addEventListener("change", (event) => {
  addFiles(event.target.files);
  event.target.value = ""; // so that the same file can be chosen again
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  get("drop").classList.add("over");
});
document.addEventListener("dragleave", () => get("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  get("drop").classList.remove("over");
  addFiles(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => addFiles(event.clipboardData.files));
get("camera").addEventListener("click", () => {
  if (stream) stopCamera();
  else
    startCamera().catch((error) => {
      get("status").textContent = `webcam: ${error.message}`;
    });
});
get("example").addEventListener("click", async () => {
  const response = await fetch("example.jpg");
  addPhoto(await response.blob(), "drawn faces");
});
get("clear").addEventListener("click", () => {
  document.querySelectorAll("#photos img").forEach((image) => URL.revokeObjectURL(image.src));
  get("photos").replaceChildren();
  waiting.length = 0;
  get("clear").hidden = true;
  get("status").textContent = "";
});

fetch("health")
  .then((response) => response.json())
  .then(({ ready }) => {
    if (!ready) get("status").textContent = "The server is not ready yet.";
  })
  .catch(() => undefined);
