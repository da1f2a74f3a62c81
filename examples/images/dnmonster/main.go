// Command dnmonster serves identicons: GET /monster/NAME?size=80 draws the same
// small symmetrical picture, a PNG, for the same name every time.
//
// It is half of the identidock demonstration and lives in the image
// amouat/dnmonster:1.0 of the testbed's registry.
package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"log"
	"math"
	"net/http"
	"os"
	"strconv"
	"time"
)

const (
	cells       = 7 // per side, an odd number, mirrored on the middle column
	defaultSize = 80
	maxSize     = 1024
)

func main() {
	addr := ":8080"
	if p := os.Getenv("PORT"); p != "" {
		addr = ":" + p
	}
	srv := &http.Server{Addr: addr, Handler: handler(), ReadHeaderTimeout: 10 * time.Second}
	log.Printf("dnmonster: listening on %s", addr)
	log.Fatal(srv.ListenAndServe())
}

func handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /monster/{name}", serveMonster)
	return mux
}

func serveMonster(w http.ResponseWriter, r *http.Request) {
	size := defaultSize
	if s := r.URL.Query().Get("size"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < cells || n > maxSize {
			http.Error(w, fmt.Sprintf("size must be a number from %d to %d", cells, maxSize), http.StatusBadRequest)
			return
		}
		size = n
	}
	var b bytes.Buffer
	if err := png.Encode(&b, draw(r.PathValue("name"), size)); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "image/png")
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	if _, err := w.Write(b.Bytes()); err != nil {
		log.Printf("dnmonster: answer %s: %v", r.RemoteAddr, err)
	}
}

// draw takes the hash of the name bit by bit: one for each cell of the left
// half, the rest for the colour.
func draw(name string, size int) image.Image {
	h := sha256.Sum256([]byte(name))
	ink := hue(float64(h[31])/256*360, 0.35+float64(h[30])/1024, 0.65)
	paper := color.NRGBA{0xf2, 0xf2, 0xf0, 0xff}
	m := image.NewNRGBA(image.Rect(0, 0, size, size))
	const half = cells/2 + 1
	for y := range size {
		for x := range size {
			cx, cy := x*cells/size, y*cells/size
			if cx >= half {
				cx = cells - 1 - cx
			}
			bit := cy*half + cx
			c := paper
			if h[bit/8]>>(bit%8)&1 == 1 {
				c = ink
			}
			m.SetNRGBA(x, y, c)
		}
	}
	return m
}

// hue turns a colour from hue (degrees), lightness and saturation into RGB.
func hue(deg, light, sat float64) color.NRGBA {
	f := func(n float64) uint8 {
		k := math.Mod(n+deg/30, 12)
		a := sat * math.Min(light, 1-light)
		return uint8(255 * (light - a*math.Max(-1, math.Min(math.Min(k-3, 9-k), 1))))
	}
	return color.NRGBA{f(0), f(8), f(4), 0xff}
}
