// Camera and microphone: opening, choosing, remembering, level metering.

const STORAGE_KEY = "guest-relay.devices";
/** Chosen to send nothing of a kind. */
export const NONE = "none";

const VIDEO = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };

/** WebKit mutes the first track when a second getUserMedia call opens the other kind (bug 179363). */
const oneCallForBoth = /AppleWebKit/.test(navigator.userAgent) && !/Chrom(e|ium)\//.test(navigator.userAgent);

/** What went wrong, as a key of the string table in `key`. */
export class MediaError extends Error {
  constructor(key, values = {}) {
    super(key);
    this.key = key;
    this.values = values;
  }
}

/** The guest's last choice: `{camera: {id, label}, microphone: {id, label}, music}`. */
function load() {
  try {
    return JSON.parse(localStorage.getItem(STORAGE_KEY)) ?? {};
  } catch {
    return {};
  }
}

function save(choice) {
  try {
    localStorage.setItem(STORAGE_KEY, JSON.stringify(choice));
  } catch {
    // Private browsing: the choice lasts as long as the page.
  }
}

/** Holds the open tracks and the choice that led to them. */
export class Devices {
  choice = load();
  /** @type {MediaStream | null} */
  stream = null;
  /** What the guest has switched off; it stays off whatever tracks come and go. */
  #muted = { camera: false, microphone: false };

  /** `onEnded(kind)`: a device went away. `onPaused(paused)`: the system pauses or returns the camera. */
  constructor({ onEnded, onPaused }) {
    this.onEnded = onEnded;
    this.onPaused = onPaused;
  }

  get camera() {
    return this.stream?.getVideoTracks()[0] ?? null;
  }

  get microphone() {
    return this.stream?.getAudioTracks()[0] ?? null;
  }

  /**
   * Opens what is chosen, both kinds in one call. Resolves to the key of a warning when one kind is missing, or to null.
   * Rejects with MediaError.
   */
  async open() {
    const wantsVideo = this.choice.camera?.id !== NONE;
    const wantsAudio = this.choice.microphone?.id !== NONE;
    if (!wantsVideo && !wantsAudio) throw new MediaError("nothingToSend");
    this.close();
    try {
      this.#take(await this.#request(wantsVideo, wantsAudio));
      return null;
    } catch (error) {
      if (error.name !== "NotFoundError" || !(wantsVideo && wantsAudio)) throw describe(error);
    }
    // One of the two is missing; the other is enough to join with.
    for (const [video, audio, warning] of [[true, false, "NotFoundMicrophone"], [false, true, "NotFoundCamera"]]) {
      try {
        this.#take(await this.#request(video, audio));
        return warning;
      } catch (error) {
        if (error.name !== "NotFoundError") throw describe(error);
      }
    }
    throw new MediaError("NotFoundError");
  }

  /** Changes a device; `kind` is "camera" or "microphone". Opens only that kind where the browser allows it. */
  async choose(kind, id, label) {
    this.choice = { ...this.choice, [kind]: { id, label } };
    save(this.choice);
    if (!this.stream) return;
    const video = kind === "camera";
    if (oneCallForBoth) {
      await this.open();
    } else {
      // A camera may be open only once on many phones: let go before taking the next.
      const former = video ? this.camera : this.microphone;
      if (former) {
        this.stream.removeTrack(former);
        former.stop();
      }
      if (id !== NONE) {
        try {
          const fresh = await this.#request(video, !video);
          this.#take(new MediaStream([...this.stream.getTracks(), ...fresh.getTracks()]));
        } catch (error) {
          throw describe(error);
        }
      }
    }
  }

  isMuted(kind) {
    return this.#muted[kind];
  }

  /** Switches a kind off or on. The track goes on: a sender without packets would be taken for gone. */
  mute(kind, muted) {
    this.#muted[kind] = muted;
    if (this[kind]) this[kind].enabled = !muted;
  }

  /** Switches the browser's voice processing on or off. */
  async setMusic(music) {
    this.choice = { ...this.choice, music };
    save(this.choice);
    if (this.microphone) await this.choose("microphone", this.choice.microphone?.id, this.choice.microphone?.label);
  }

  /** Lets go of camera and microphone. */
  close() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = null;
  }

  /** `{camera: [{id, label}], microphone: […]}`; labels are empty until permission was given. */
  async list() {
    const devices = await navigator.mediaDevices.enumerateDevices();
    const of = (kind) => devices.filter((d) => d.kind === kind).map((d) => ({ id: d.deviceId, label: d.label }));
    this.#known = { camera: of("videoinput"), microphone: of("audioinput") };
    return this.#known;
  }

  #known = { camera: [], microphone: [] };

  async #request(video, audio) {
    const voice = !this.choice.music;
    const constraints = (exact) => ({
      video: video && { ...VIDEO, ...this.#device("camera", exact) },
      audio: audio && {
        ...this.#device("microphone", exact),
        echoCancellation: voice,
        noiseSuppression: voice,
        autoGainControl: voice,
      },
    });
    try {
      return await navigator.mediaDevices.getUserMedia(constraints(true));
    } catch (error) {
      // The remembered device is gone; any other will do.
      if (error.name !== "OverconstrainedError") throw error;
      return navigator.mediaDevices.getUserMedia(constraints(false));
    }
  }

  /** Device ids change with the browser's whims, so a label that is still there counts as the same device. */
  #device(kind, exact) {
    const chosen = this.choice[kind];
    if (!exact || !chosen?.id || chosen.id === NONE) return {};
    const known = this.#known[kind];
    const same = known.find((d) => d.id === chosen.id) ?? known.find((d) => d.label && d.label === chosen.label);
    return { deviceId: { exact: same?.id ?? chosen.id } };
  }

  #take(stream) {
    this.stream = stream;
    const { camera, microphone } = this;
    if (camera) camera.contentHint = "motion";
    if (microphone) microphone.contentHint = this.choice.music ? "music" : "speech";
    for (const track of stream.getTracks()) {
      const kind = track.kind === "video" ? "camera" : "microphone";
      track.enabled = !this.#muted[kind];
      track.onended = () => this.onEnded(kind);
    }
    if (!camera) return;
    // Systems report short, spurious pauses in the first second.
    let timer;
    camera.onmute = () => (timer = setTimeout(() => this.onPaused(camera.muted), 1500));
    camera.onunmute = () => {
      clearTimeout(timer);
      this.onPaused(false);
    };
  }
}

function describe(error) {
  const known = ["NotAllowedError", "NotFoundError", "NotReadableError", "OverconstrainedError", "AbortError", "SecurityError"];
  return known.includes(error.name) ? new MediaError(error.name) : new MediaError("otherMediaError", { name: error.name });
}

/** Shows the level of a stream's sound in `element`, whose first child is the bar. */
export class Meter {
  #context = null;
  #source = null;
  #frame = 0;

  constructor(element) {
    this.element = element;
    this.bar = element.firstElementChild;
  }

  /** To be called from a click handler at first: browsers start audio only then. */
  show(stream) {
    this.stop();
    if (!stream?.getAudioTracks().length) return;
    this.#context ??= new AudioContext();
    this.#context.resume();
    const analyser = this.#context.createAnalyser();
    analyser.fftSize = 1024;
    this.#source = this.#context.createMediaStreamSource(new MediaStream(stream.getAudioTracks()));
    this.#source.connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    let shown = 0;
    const draw = () => {
      this.#frame = requestAnimationFrame(draw);
      analyser.getFloatTimeDomainData(samples);
      let sum = 0;
      for (const sample of samples) sum += sample * sample;
      // -60 dBFS is empty, 0 dBFS is full; falls slowly, as people expect of a meter.
      const decibel = 10 * Math.log10(sum / samples.length + 1e-9);
      const level = Math.min(1, Math.max(0, 1 + decibel / 60));
      shown = Math.max(level, shown - 0.02);
      this.bar.style.transform = `scaleX(${shown.toFixed(3)})`;
      this.element.classList.toggle("loud", decibel > -6);
    };
    draw();
  }

  stop() {
    cancelAnimationFrame(this.#frame);
    this.#source?.disconnect();
    this.#source = null;
    this.bar.style.transform = "scaleX(0)";
  }
}
