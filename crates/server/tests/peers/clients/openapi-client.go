// Uses the client that oapi-codegen generates from the OpenAPI document: it must compile.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"

	client "pinfold.test/client"
)

func main() {
	key := func(_ context.Context, request *http.Request) error {
		request.Header.Set("X-API-Key", os.Getenv("PINFOLD_API_KEY"))
		return nil
	}
	api, err := client.NewClientWithResponses("http://127.0.0.1:3000", client.WithRequestEditorFn(key))
	if err != nil {
		log.Fatal(err)
	}
	if err := run(context.Background(), api, os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, api *client.ClientWithResponses, cid string) error {
	wait, name := "wait=5", "wiki"
	pinned, err := api.CreatePinWithResponse(ctx, cid, &client.CreatePinParams{Prefer: &wait}, client.PinOptions{CustomName: &name})
	switch {
	case err != nil:
		return err
	case pinned.JSON201 != nil:
		fmt.Println(pinned.JSON201.Cid, pinned.JSON201.Status)
	case pinned.JSON404 != nil:
		return fmt.Errorf("%s: %s", pinned.JSON404.Error, pinned.JSON404.Message)
	}
	limit := int64(100)
	listed, err := api.ListPinsWithResponse(ctx, &client.ListPinsParams{Limit: &limit})
	if err != nil || listed.JSON200 == nil {
		return fmt.Errorf("list: %w", err)
	}
	for _, upload := range listed.JSON200.Uploads {
		fmt.Println(upload.Cid, upload.Status)
	}
	removed, err := api.RemovePinWithResponse(ctx, cid, nil)
	if err == nil && removed.JSON200 != nil {
		fmt.Println("removed:", removed.JSON200.Removed)
	}
	return err
}
