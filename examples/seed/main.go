// Pins a CID with Go's standard library: go run main.go [CID]
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
)

func main() {
	cid := "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
	if len(os.Args) > 1 {
		cid = os.Args[1]
	}
	base := os.Getenv("PINFOLD_SERVER")
	if base == "" {
		base = "http://127.0.0.1:3000"
	}
	url := base + "/api/v3/files/pin/" + cid
	apiKey := os.Getenv("PINFOLD_API_KEY")
	body, err := json.Marshal(map[string]string{"cl": "cl0-global"})
	if err != nil {
		log.Fatal(err)
	}
	req, err := http.NewRequest("POST", url, bytes.NewReader(body))
	if err != nil {
		log.Fatal(err)
	}
	req.Header.Set("X-API-Key", apiKey)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		log.Fatal(err)
	}
	if resp.StatusCode >= 300 {
		log.Fatalf("%s: %s", resp.Status, answer)
	}
	fmt.Println(string(answer))
}
